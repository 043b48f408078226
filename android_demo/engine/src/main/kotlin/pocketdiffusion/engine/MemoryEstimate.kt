package pocketdiffusion.engine

/**
 * The memory that a drawing takes, as far as the manifest counts it (docs/BUNDLE.md, section 5, `memory`). An engine
 * adds its own code, copies of weights in another layout and scratch space: `FACTOR` and `OVERHEAD` are for these, a
 * guess that device reports can better.
 */
class MemoryEstimate(generator: Generator, hasPicture: Boolean) {
    private val stages = generator.stagesFor(hasPicture).map { generator.pipeline.graphsOf(it) }

    /** Bytes at the peak; null where the weights of a graph are not known. */
    fun peakBytes(residency: Residency): Long? {
        if (stages.flatten().any { it.memory.weights == null }) return null
        val kept = LinkedHashSet<PipelineGraph>() // of the stages before
        val peak = stages.maxOf { graphs ->
            val own = graphs - kept
            val before = kept.sumOf { it.memory.kept }
            if (residency == Residency.KEEP) kept += own
            before + if (residency == Residency.CALL) oneByOne(own) else together(own)
        }
        return (peak * FACTOR).toLong() + OVERHEAD
    }

    private fun oneByOne(graphs: List<PipelineGraph>): Long =
        graphs.maxOf { maxOf(it.memory.opening, it.memory.called) }

    /** All are opened one after the other, and then called one after the other. */
    private fun together(graphs: List<PipelineGraph>): Long {
        var opened = 0L
        val opening = graphs.maxOfOrNull { graph ->
            (opened + graph.memory.opening).also { opened += graph.memory.weights ?: 0 }
        }
        val calling = graphs.maxOfOrNull { it.memory.called - it.memory.kept } ?: 0
        return maxOf(opening ?: 0, graphs.sumOf { it.memory.kept } + calling)
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

    private companion object {
        const val FACTOR = 1.1
        const val OVERHEAD = 64L shl 20
    }
}
