package pocketdiffusion.engine

import java.io.Closeable

/** How long graphs stay open. */
enum class Residency {
    /** Until the generator is closed: the next picture begins at once. */
    KEEP,

    /** For the stage that needs them. */
    STAGE,

    /**
     * Until another graph is called: never two are open. The least memory; where a step has several graphs, each step
     * opens them anew.
     */
    CALL,
}

/**
 * The graphs that are open. A unit that refuses a graph, or that the manifest knows to be bad, gives way to the CPU,
 * and `fallbacks` says so.
 */
internal class GraphPool(
    private val bundle: Bundle,
    private val engine: GraphEngine,
    private val residency: Residency,
    private val wishedUnit: (PipelineGraph) -> String,
) : Closeable {
    private val open = LinkedHashMap<String, GraphRunner>()
    val fallbacks = HashMap<String, EngineError>()

    /**
     * Opens the graphs of a stage, where they stay open together: the copies that an engine needs while it loads one
     * then never lie beside what it keeps of calls. `before` is called before each.
     */
    fun beginStage(graphs: List<PipelineGraph>, before: () -> Unit) {
        if (residency == Residency.CALL) return
        for (graph in graphs) {
            before()
            get(graph)
        }
    }

    /** The graph, which is opened where it is not. */
    fun get(graph: PipelineGraph): GraphRunner {
        open[graph.name]?.let { return it }
        if (residency == Residency.CALL) close()
        return openOn(unitOf(graph), graph).also { open[graph.name] = it }
    }

    fun unitOf(graph: PipelineGraph): String = if (graph.name in fallbacks) CPU else wishedUnit(graph)

    /** Whether the graph can be run, as far as it is known without opening it. Throws what `GraphEngine.check` does. */
    fun check(graph: PipelineGraph) {
        orOnCpu(graph) { unit -> engine.check(graph, unit) }
    }

    fun endStage() {
        if (residency != Residency.KEEP) close()
    }

    override fun close() {
        open.values.forEach { it.close() }
        open.clear()
    }

    private fun openOn(unit: String, graph: PipelineGraph): GraphRunner =
        if (unit == CPU) engine.open(bundle, graph, CPU) else orOnCpu(graph) { engine.open(bundle, graph, it) }

    /**
     * Does `work` on the graph's unit, or else on the CPU. Where that fails too, the first error is the one to tell.
     */
    private fun <T> orOnCpu(graph: PipelineGraph, work: (String) -> T): T {
        val unit = unitOf(graph)
        try {
            return work(unit)
        } catch (error: EngineError) {
            val isOfUnit = error is UnitKnownBad || error is UnitNotHere || error is EngineFailure
            if (unit == CPU || !isOfUnit) throw error
            val done = try {
                work(CPU)
            } catch (_: EngineError) {
                throw error
            }
            fallbacks[graph.name] = error
            return done
        }
    }

    private companion object {
        const val CPU = "cpu"
    }
}
