package pocketdiffusion.engine

/** Values by their names. */
typealias Values = Map<String, Tensor>

/**
 * Runs the stages of a program: one loop for every model. `graphs` gives a graph, opened, by its name; `constants` are the
 * program's own arrays.
 */
class ProgramRun(
    private val program: Program,
    private val specs: Map<String, GraphSpec>,
    private val constants: Map<String, Tensor>,
    private val graphs: (String) -> GraphRunner,
    private val cancellation: Cancellation,
) {
    /**
     * The calls of a stage, in order. `halves` has the values that each half of guidance begins with; the answer has those
     * that were made for each. A call of values that the halves share is made once; with `stacked` the others too, with the
     * halves along the first axis.
     */
    fun run(stage: Stage, halves: List<Values>, stacked: Boolean = false): List<Values> {
        val all = halves.map { HashMap(it) }
        val depends = program.dependsOnHalf(stage)
        for ((i, call) in stage.calls.withIndex()) {
            cancellation.check()
            val graph = graphs(call.graph)
            val spec = specs.getValue(call.graph)
            val results: List<Values> = when {
                depends[i].isEmpty() -> graph.run(inputsOf(call, spec, all[0]), cancellation).let { one ->
                    all.map { one }
                }
                stacked && all.size > 1 -> cut(
                    graph.run(
                        stack(
                            spec,
                            all.map {
                                inputsOf(call, spec, it)
                            },
                        ),
                        cancellation,
                    ),
                    all.size,
                )
                else -> all.map { graph.run(inputsOf(call, spec, it), cancellation) }
            }
            for ((output, value) in call.outputs) {
                for ((half, result) in results.withIndex()) all[half][value] = result.getValue(output)
            }
        }
        val names = stage.calls.flatMap { it.outputs.values }.toSet()
        return all.map { it.filterKeys { name -> name in names } }
    }

    /** What a stage would make, as zeros of their shapes. */
    fun zeros(stage: Stage): Values = stage.calls.flatMap { call ->
        call.outputs.map { (output, value) ->
            val tensor = specs.getValue(call.graph).output(output)!!
            value to Tensor.make(tensor.dtype, tensor.resolve())
        }
    }.toMap()

    private fun inputsOf(call: Call, spec: GraphSpec, values: Values): Values =
        spec.inputs.associate { input -> input.name to valueOf(call.inputs.getValue(input.name), values) }

    private fun valueOf(source: Source, values: Values): Tensor {
        fun get(name: String) = values[name] ?: throw Refusal("the host value $name, which is not given here")
        return when (source) {
            is Source.Value -> get(source.names[0])
            is Source.Concat -> Tensor.concat(source.names.map(::get), source.axis)
            is Source.Sum -> Tensor.sum(source.names.map(::get))
            is Source.Constant -> constants.getValue(source.ref.path)
        }
    }

    private fun stack(spec: GraphSpec, halves: List<Values>): Values = spec.inputs.associate { input ->
        val each = halves.map { it.getValue(input.name) }
        input.name to if (input.shape.firstOrNull()?.name == null) each[0] else Tensor.concat(each, 0)
    }

    private fun cut(results: Values, parts: Int): List<Values> {
        val each = results.mapValues { (_, value) -> value.cut(parts) }
        return List(parts) { i -> each.mapValues { (_, values) -> values[i] } }
    }
}
