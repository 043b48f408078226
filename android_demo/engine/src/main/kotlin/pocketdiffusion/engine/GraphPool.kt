package pocketdiffusion.engine

import java.io.Closeable

/** How long graphs stay open. */
enum class Residency {
    /** Until the generator is closed: the next picture begins at once. */
    KEEP,

    /** For the stage that needs them. */
    STAGE,

    /** For their call, but in the stage that is run for each step: the least memory. */
    CALL,
}

/** The graphs that are open. */
internal class GraphPool(
    private val bundle: Bundle,
    private val engine: GraphEngine,
    private val residency: Residency,
    private val unitOf: (PipelineGraph) -> String,
) : Closeable {
    private val open = LinkedHashMap<String, GraphRunner>()

    /** The graph, which is opened where it is not. With `alone` all others may be closed before. */
    fun get(graph: PipelineGraph, alone: Boolean): GraphRunner {
        open[graph.name]?.let { return it }
        if (alone && residency == Residency.CALL) close()
        return engine.open(bundle, graph, unitOf(graph)).also { open[graph.name] = it }
    }

    fun endStage() {
        if (residency != Residency.KEEP) close()
    }

    override fun close() {
        open.values.forEach { it.close() }
        open.clear()
    }
}
