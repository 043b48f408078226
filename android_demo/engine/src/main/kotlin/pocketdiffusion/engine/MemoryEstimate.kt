package pocketdiffusion.engine

/**
 * The memory that a drawing takes, as far as the manifest counts it: weights and activations of the graphs that are
 * open at once, at their largest. An engine adds its own code, copies of weights in another layout and scratch space:
 * `OVERHEAD` is for these, a guess that device reports can better.
 */
class MemoryEstimate(private val generator: Generator, hasPicture: Boolean) {
    private val graphs = generator.pipeline.graphs
    private val stages = generator.stagesFor(hasPicture)

    /** Bytes at the peak; null where the weights of a graph are not known. */
    fun peakBytes(residency: Residency): Long? {
        val needed = stages.flatMap { it.calls }.map { graphs.getValue(it.graph) }.distinct()
        if (needed.any { it.memory.weights == null }) return null
        val peak = stages.maxOf { stage ->
            val own = stage.calls.map { graphs.getValue(it.graph) }.distinct()
            val largest = own.maxOf { it.memory.activations ?: 0 }
            when {
                residency == Residency.KEEP -> needed.sumOf(::weights) + largest
                residency == Residency.STAGE || stage.name == Program.DENOISE -> own.sumOf(::weights) + largest
                else -> own.maxOf { weights(it) + (it.memory.activations ?: 0) }
            }
        }
        return (peak * FACTOR).toLong() + OVERHEAD
    }

    /**
     * The most comfortable way to keep graphs that fits into `leftBytes`, beginning with `wished`. Throws
     * NotEnoughMemory, which says what would fit, where none does. What is not known is let through.
     */
    fun choose(leftBytes: Long, wished: Residency = Residency.KEEP): Residency {
        val ways = Residency.values().filter { it >= wished }
        return ways.firstOrNull { (peakBytes(it) ?: return it) <= leftBytes } ?: refuse(leftBytes)
    }

    /** Throws NotEnoughMemory where this way of keeping graphs does not fit; it says which would. */
    fun check(residency: Residency, leftBytes: Long) {
        val needs = peakBytes(residency) ?: return
        if (needs <= leftBytes) return
        val least = choose(leftBytes, wished = residency)
        val fits = "it takes ${peakBytes(least)!! shr 20} MB with fewer graphs open at a time, which fits"
        throw NotEnoughMemory(needs, leftBytes, fits)
    }

    private fun refuse(leftBytes: Long): Nothing = throw NotEnoughMemory(peakBytes(Residency.CALL)!!, leftBytes, null)

    private fun weights(graph: PipelineGraph): Long = graph.memory.weights ?: 0

    private companion object {
        const val FACTOR = 1.1
        const val OVERHEAD = 64L shl 20
    }
}
