package pocketdiffusion.engine

/** An engine whose graphs do something else before each call, with what they are given, or with what they gave. */
class ChangedEngine(
    private val engine: GraphEngine,
    override val units: List<String> = engine.units,
    private val before: (String) -> Unit = {},
    private val given: (String, Values) -> Values = { _, values -> values },
    private val after: (String, Values) -> Values = { _, values -> values },
) : GraphEngine by engine {
    /** The graphs that are open, each with its unit. */
    val open = LinkedHashMap<String, String>()
    var mostOpen = 0

    /** The graphs that were ever opened, in their order, one as often as it was opened. */
    val opened = ArrayList<String>()

    override fun check(graph: PipelineGraph, unit: String) {
        if (unit !in units) throw UnitNotHere(graph.name, unit, engine.name)
        graph.checkUnit(unit)
        engine.check(graph, "cpu")
    }

    override fun open(bundle: Bundle, graph: PipelineGraph, unit: String): GraphRunner {
        check(graph, unit)
        val runner = engine.open(bundle, graph, "cpu")
        check(graph.name !in open) { "${graph.name} is opened twice" }
        open[graph.name] = unit
        opened += graph.name
        mostOpen = Math.max(mostOpen, open.size)
        return object : GraphRunner {
            override fun run(inputs: Values, cancellation: Cancellation): Values {
                before(graph.name)
                return after(graph.name, runner.run(given(graph.name, inputs), cancellation))
            }

            override fun close() {
                open -= graph.name
                runner.close()
            }
        }
    }
}
