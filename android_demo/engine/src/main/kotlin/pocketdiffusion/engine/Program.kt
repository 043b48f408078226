package pocketdiffusion.engine

/** What an input of a call is made of. */
sealed class Source {
    /** The names of the values that it takes. */
    open val names: List<String> get() = emptyList()

    class Value(name: String) : Source() {
        override val names = listOf(name)
    }

    class Concat(override val names: List<String>, val axis: Int) : Source()

    class Sum(override val names: List<String>) : Source()

    class Constant(val ref: ArrayRef) : Source()

    companion object {
        fun read(node: JsonNode): Source {
            if (node.isText) return Value(node.text())
            node.find("concat")?.let { return Concat(it.texts(), node["axis"].int()) }
            node.find("sum")?.let { return Sum(it.texts()) }
            node.find("constant")?.let { return Constant(ArrayRef.read(it)) }
            throw Refusal("an input of a kind of its own, ${node.where}")
        }
    }
}

/** One call of a graph: what its inputs are, and which values its outputs become. */
class Call(val graph: String, val inputs: Map<String, Source>, val outputs: Map<String, String>)

/** Calls that are made in order, where every host value in `needs` is there. */
class Stage(val name: String, val needs: List<String>, val calls: List<Call>)

/**
 * Which graph gets what, and when (docs/BUNDLE.md, section 4). Nothing here knows a family of models: stages, calls and
 * names of values come from the pipeline file.
 */
class Program private constructor(
    val guidance: Guidance,
    /** Whether zeros stand for what a prompt that was not given would become; else the empty text does. */
    val absentIsZeros: Boolean,
    val draws: List<Draw>,
    private val stages: List<Stage>,
    private val specs: Map<String, GraphSpec>,
) {
    enum class Guidance(val text: String) { CLASSIFIER_FREE("classifier_free"), EMBEDDED("embedded"), NONE("none") }

    enum class Draw(val text: String) { POSTERIOR("posterior"), START("start"), STEPS("steps") }

    private val encoded = stages.filter {
        it.name == ENCODE_PROMPT
    }.flatMap { it.calls }.flatMap { it.outputs.values }.toSet()

    val constants: List<ArrayRef>
        get() = stages.flatMap { it.calls }.flatMap { it.inputs.values }.mapNotNull { (it as? Source.Constant)?.ref }

    /** The first variant of a stage for which all host values are `there`, or null where the program has no such stage. */
    fun variant(name: String, there: Set<String>): Stage? {
        val variants = stages.filter { it.name == name }
        return variants.firstOrNull { there.containsAll(it.needs) }
            ?: if (variants.isEmpty()) {
                null
            } else {
                throw Refusal(
                    "$name without ${variants[0].needs.first {
                        it !in there
                    }}",
                )
            }
    }

    /** The host values that are there: those that always are, and what the kind of guidance and a picture add. */
    fun hosts(tokenizers: Int, hasPicture: Boolean): Set<String> {
        val hosts = ALWAYS.toMutableSet()
        for (n in 1..tokenizers) hosts += listOf("tokens/$n", "attention_mask/$n")
        if (guidance == Guidance.EMBEDDED) hosts += "guidance"
        if (hasPicture) hosts += "picture"
        return hosts
    }

    /** For each call of a stage, the inputs that depend on the half of guidance. */
    fun dependsOnHalf(stage: Stage): List<Set<String>> {
        val dependent = encoded.toMutableSet()
        return stage.calls.map { call ->
            val found = call.inputs.filterValues { source ->
                source.names.any { it in dependent || HALF.matches(it) }
            }.keys
            if (found.isNotEmpty()) dependent += call.outputs.values
            found
        }
    }

    /** Whether every graph of the stage may be called once for both halves. */
    fun canStack(stage: Stage): Boolean = stage.calls.zip(dependsOnHalf(stage)).all { (call, inputs) ->
        inputs.all { specs.getValue(call.graph).input(it)?.shape?.firstOrNull()?.name != null }
    }

    /** The dtype of every host value, and whether there can be such a value. */
    private class Hosts(private val tokenizers: Int) {
        fun dtypeOf(name: String): DType? {
            val number = NUMBERED.matchEntire(name)?.groupValues?.get(1)?.toIntOrNull()
            return when {
                name in FLOATS -> DType.FLOAT32
                number != null && number in 1..tokenizers -> DType.INT32
                else -> null
            }
        }
    }

    /** Refuses what this engine does not know, also in variants that it would not take. */
    private fun check(hosts: Hosts) {
        if (DENOISE !in stages.map { it.name }) throw Refusal("a program without the stage $DENOISE")
        if (DECODE !in stages.map { it.name }) throw Refusal("a program without the stage $DECODE")
        val made = HashMap<String, DType>()
        for (stage in STAGES.flatMap { name -> stages.filter { it.name == name } }) {
            stage.needs.firstOrNull { hosts.dtypeOf(it) == null }?.let { throw Refusal("the host value $it") }
            for (call in stage.calls) {
                val spec =
                    specs[call.graph] ?: throw Refusal("the graph ${call.graph}, which the pipeline file has not")
                for (input in spec.inputs) {
                    if (input.name !in
                        call.inputs
                    ) {
                        throw Refusal("${call.graph} without its input ${input.name}")
                    }
                }
                for ((name, source) in call.inputs) {
                    val input =
                        spec.input(name) ?: throw Refusal("the input $name of ${call.graph}, which the graph has not")
                    checkInput(call, input, source) { hosts.dtypeOf(it) ?: made[it] }
                }
                for ((name, value) in call.outputs) {
                    val dtype =
                        spec.output(name)?.dtype
                            ?: throw Refusal("the output $name of ${call.graph}, which the graph has not")
                    if (made.getOrPut(value) { dtype } != dtype) throw Refusal("the value $value of two dtypes")
                }
            }
        }
    }

    private fun checkInput(call: Call, input: TensorSpec, source: Source, dtypeOf: (String) -> DType?) {
        val dtypes = source.names.map { dtypeOf(it) ?: throw Refusal("the host value $it") }.toMutableList()
        if (source is Source.Constant) dtypes += source.ref.dtype
        if (source is Source.Sum) dtypes += DType.FLOAT32
        if (source is Source.Concat &&
            source.axis < 1
        ) {
            throw Refusal("values that are joined along axis ${source.axis}")
        }
        dtypes.firstOrNull { it != input.dtype }?.let {
            throw Refusal("a value of $it for the input ${input.name} of ${call.graph}, which is ${input.dtype}")
        }
    }

    companion object {
        const val ENCODE_PROMPT = "encode_prompt"
        const val ENCODE_IMAGE = "encode_image"
        const val DENOISE = "denoise"
        const val DECODE = "decode"
        private val STAGES = listOf(ENCODE_PROMPT, ENCODE_IMAGE, DENOISE, DECODE, "preview") // in the order of running
        private val FLOATS = setOf(
            "latents", "scaled_latents", "timestep", "decoder_latents", "picture", "control_picture", "control_scale",
            "mask", "masked_picture", "guidance", "time_ids",
        )
        private val ALWAYS = setOf("latents", "scaled_latents", "timestep", "decoder_latents", "time_ids")
        private val NUMBERED = Regex("(?:tokens|attention_mask)/([1-9][0-9]*)")
        private val HALF = Regex("(?:tokens|attention_mask)/[0-9]+|time_ids")

        fun read(node: JsonNode, specs: Map<String, GraphSpec>, tokenizers: Int): Program {
            fun <T> one(all: Array<T>, text: (T) -> String, value: String, what: String): T =
                all.firstOrNull { text(it) == value } ?: throw Refusal("the $what $value")

            val absent = node["absent_negative"].text()
            if (absent !in listOf("encode_empty", "zeros")) throw Refusal("the absent_negative $absent")
            val stages = node["stages"].items().mapNotNull { stage ->
                val name = stage["stage"].text()
                val required = stage.optional("required") { it.boolean() } ?: true
                if (name !in STAGES && required) throw Refusal("the required stage $name")
                if (name in STAGES) readStage(name, stage) else null
            }
            val program = Program(
                one(Guidance.values(), { it.text }, node["guidance"].text(), "guidance kind"),
                absent == "zeros",
                node["draws"].texts().map { draw -> one(Draw.values(), { it.text }, draw, "draw") },
                stages,
                specs,
            )
            program.check(Hosts(tokenizers))
            return program
        }

        private fun readStage(name: String, node: JsonNode): Stage {
            val calls = node["calls"].items().map { call ->
                Call(
                    call["graph"].text(),
                    call["inputs"].entries().mapValues { (_, source) -> Source.read(source) },
                    call["outputs"].entries().mapValues { (_, value) -> value.text() },
                )
            }
            return Stage(name, node.optional("when") { it.texts() }.orEmpty(), calls)
        }
    }
}
