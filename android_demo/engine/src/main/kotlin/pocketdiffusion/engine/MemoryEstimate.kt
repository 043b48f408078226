package pocketdiffusion.engine

/**
 * The memory that a drawing takes, as far as the manifest counts it: weights and activations of the graphs that are open
 * at once, at their largest. An engine adds its own code, copies of weights in another layout and scratch space: `OVERHEAD`
 * is for these, a guess that device reports can better.
 */
class MemoryEstimate(private val pipeline: Pipeline, private val hasPicture: Boolean) {
    /** Bytes at the peak; null where a graph's weights are not known. */
    fun peakBytes(residency: Residency): Long? {
        val needed = stages().flatMap { it.calls }.map { it.graph }.distinct()
        if (needed.any { graph(it).memory.weights == null }) return null
        val held = if (residency == Residency.KEEP) needed else emptyList()
        val peak = stages().maxOf { stage ->
            val graphs = stage.calls.map { it.graph }.distinct()
            when {
                residency == Residency.CALL && stage.name != Program.DENOISE -> graphs.maxOf {
                    weights(it) +
                        activations(it)
                }
                else -> (held + graphs).distinct().sumOf(::weights) + graphs.maxOf(::activations)
            }
        }
        return (peak * FACTOR).toLong() + OVERHEAD
    }

    /**
     * The most comfortable way to keep graphs that fits into `leftBytes`, beginning with `wished`. Throws NotEnoughMemory,
     * which says what would fit, where none does. What is not known is let through.
     */
    fun choose(leftBytes: Long, wished: Residency = Residency.KEEP): Residency {
        val ways = Residency.values().filter { it >= wished }
        return ways.firstOrNull { (peakBytes(it) ?: return it) <= leftBytes } ?: refuse(leftBytes)
    }

    /** Throws NotEnoughMemory where this way of keeping graphs does not fit. */
    fun check(residency: Residency, leftBytes: Long) {
        val needs = peakBytes(residency) ?: return
        if (needs <= leftBytes) return
        val other =
            Residency.values().firstOrNull { it > residency && peakBytes(it)!! <= leftBytes } ?: refuse(leftBytes)
        throw NotEnoughMemory(
            needs,
            leftBytes,
            "with one graph open at a time it takes ${peakBytes(other)!! shr 20} MB, which fits",
        )
    }

    private fun refuse(leftBytes: Long): Nothing = throw NotEnoughMemory(peakBytes(Residency.CALL)!!, leftBytes, null)

    private fun stages(): List<Stage> {
        val there = pipeline.program.hosts(pipeline.tokenizers.size, hasPicture)
        val names = listOf(Program.ENCODE_PROMPT, Program.ENCODE_IMAGE, Program.DENOISE, Program.DECODE)
        return names.filter {
            hasPicture || it != Program.ENCODE_IMAGE
        }.mapNotNull { pipeline.program.variant(it, there) }
    }

    private fun graph(name: String) = pipeline.graphs.getValue(name)

    private fun weights(name: String) = graph(name).memory.weights ?: 0

    private fun activations(name: String) = graph(name).memory.activations ?: 0

    private companion object {
        const val FACTOR = 1.1
        const val OVERHEAD = 64L shl 20
    }
}
