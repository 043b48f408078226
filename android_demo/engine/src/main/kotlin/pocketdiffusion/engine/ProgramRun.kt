package pocketdiffusion.engine

/** Values by their names. */
typealias Values = Map<String, Tensor>

/**
 * Runs the stages of a program: one loop for every model. `graphs` opens a graph, or has it open; `constants` are the
 * program's own arrays.
 */
class ProgramRun(
    private val pipeline: Pipeline,
    private val constants: Map<String, Tensor>,
    private val graphs: (PipelineGraph) -> GraphRunner,
    private val cancellation: Cancellation,
) {
    /**
     * The calls of a stage, in order. `halves` has the values that each half of guidance begins with; the answer has
     * those that were made for each. A call of values that the halves share is made once; with `stacked` the others
     * too, with the halves along the first axis.
     */
    fun run(stage: Stage, halves: List<Values>, stacked: Boolean = false): List<Values> {
        val all = halves.map { HashMap(it) }
        val depends = pipeline.program.dependsOnHalf(stage)
        for ((i, call) in stage.calls.withIndex()) {
            cancellation.check()
            val graph = pipeline.graphs.getValue(call.graph)
            val results = runCall(call, graph, all, isShared = depends[i].isEmpty(), stacked)
            for ((output, value) in call.outputs) {
                for ((half, result) in results.withIndex()) all[half][value] = result.getValue(output)
            }
        }
        val names = stage.calls.flatMap { it.outputs.values }.toSet()
        return all.map { it.filterKeys { name -> name in names } }
    }

    /** What a call makes for each half. */
    private fun runCall(
        call: Call,
        graph: PipelineGraph,
        halves: List<Values>,
        isShared: Boolean,
        stacked: Boolean,
    ): List<Values> {
        val runner = graphs(graph)
        fun inputsOf(half: Values) = graph.spec.inputs.associate { input ->
            input.name to valueOf(call.inputs.getValue(input.name), half)
        }
        if (isShared) {
            val one = runner.run(inputsOf(halves[0]), cancellation)
            return halves.map { one }
        }
        if (!stacked || halves.size == 1) return halves.map { runner.run(inputsOf(it), cancellation) }
        return cut(runner.run(stack(graph.spec, halves.map(::inputsOf)), cancellation), halves.size)
    }

    /** What a stage would make, as zeros of their shapes. */
    fun zeros(stage: Stage): Values = stage.calls.flatMap { call ->
        call.outputs.map { (output, value) ->
            val tensor = pipeline.graphs.getValue(call.graph).spec.output(output)!!
            value to Tensor.make(tensor.dtype, tensor.resolve())
        }
    }.toMap()

    private fun valueOf(source: Source, values: Values): Tensor {
        fun get(name: String) = values[name] ?: throw Refusal("the host value $name, which is not given here")
        return when (source) {
            is Source.Value -> get(source.names[0])
            is Source.Constant -> constants.getValue(source.ref.path)
            is Source.Concat -> fitting(source) { Tensor.concat(source.names.map(::get), source.axis) }
            is Source.Sum -> fitting(source) { Tensor.sum(source.names.map(::get)) }
        }
    }

    private fun fitting(source: Source, work: () -> Tensor): Tensor = try {
        work()
    } catch (error: IllegalArgumentException) {
        throw Refusal("values that do not fit together, ${source.names}: ${error.message}")
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
