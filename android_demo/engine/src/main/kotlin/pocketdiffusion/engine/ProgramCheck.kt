package pocketdiffusion.engine

/** Refuses programs that this engine cannot run with these graphs, by the name of what it does not know. */
internal class ProgramCheck(private val specs: Map<String, GraphSpec>, private val tokenizers: Int) {
    private val made = HashMap<String, DType>() // values of calls

    fun check(stages: List<Stage>) {
        for (name in listOf(Program.DENOISE, Program.DECODE)) {
            if (stages.none { it.name == name }) throw Refusal("a program without the stage $name")
        }
        for (stage in stages.sortedBy { Program.STAGES.indexOf(it.name) }) {
            for (host in stage.needs) if (hostDtype(host) == null) throw Refusal("the host value $host")
            stage.calls.forEach(::checkCall)
        }
    }

    private fun checkCall(call: Call) {
        val name = call.graph
        val spec = specs[name] ?: throw Refusal("the graph $name, which the pipeline file has not")
        val lacking = spec.inputs.firstOrNull { it.name !in call.inputs }
        if (lacking != null) throw Refusal("a call of $name without its input ${lacking.name}")
        for ((input, source) in call.inputs) {
            checkInput(name, spec.input(input) ?: throw Refusal("the input $input of $name, which it has not"), source)
        }
        for ((output, value) in call.outputs) {
            val dtype = (spec.output(output) ?: throw Refusal("the output $output of $name, which it has not")).dtype
            if (made.getOrPut(value) { dtype } != dtype) throw Refusal("the value $value of two dtypes")
        }
    }

    private fun checkInput(graph: String, input: TensorSpec, source: Source) {
        val dtypes = source.names
            .map { hostDtype(it) ?: made[it] ?: throw Refusal("the host value $it") }
            .toMutableSet()
        when (source) {
            is Source.Constant -> dtypes += source.ref.dtype
            is Source.Sum -> dtypes += DType.FLOAT32
            is Source.Concat -> if (source.axis < 1) throw Refusal("values that are joined along axis ${source.axis}")
            is Source.Value -> Unit
        }
        val other = dtypes.firstOrNull { it != input.dtype } ?: return
        throw Refusal("a value of $other for the input ${input.name} of $graph, which is ${input.dtype}")
    }

    /** The dtype of a host value; null where there is none of this name. */
    private fun hostDtype(name: String): DType? {
        val number = NUMBERED.matchEntire(name)?.groupValues?.get(1)?.toIntOrNull()
        return when {
            name in FLOATS -> DType.FLOAT32
            number != null && number <= tokenizers -> DType.INT32
            else -> null
        }
    }

    private companion object {
        val NUMBERED = Regex("(?:tokens|attention_mask)/([1-9][0-9]*)")
        val FLOATS = listOf(
            "latents", "scaled_latents", "timestep", "decoder_latents", "picture", "control_picture", "control_scale",
            "mask", "masked_picture", "guidance", "time_ids",
        )
    }
}
