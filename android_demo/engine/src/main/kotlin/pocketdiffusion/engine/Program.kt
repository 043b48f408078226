package pocketdiffusion.engine

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

    private val encoded = stages.filter { it.name == ENCODE_PROMPT }
        .flatMap { it.calls }
        .flatMap { it.outputs.values }

    /** The arrays of the bundle that calls take. */
    val constants: List<ArrayRef>
        get() = stages.flatMap { it.calls }.flatMap { it.inputs.values }.mapNotNull { (it as? Source.Constant)?.ref }

    /** The first variant of a stage for which all host values are `there`; null where the program has no such stage. */
    fun variant(name: String, there: Set<String>): Stage? {
        val variants = stages.filter { it.name == name }
        if (variants.isEmpty()) return null
        return variants.firstOrNull { there.containsAll(it.needs) }
            ?: throw Refusal("$name without ${variants[0].needs.first { it !in there }}")
    }

    /** The host values that are there: those that always are, and what the kind of guidance and a picture add. */
    fun hosts(tokenizers: Int, hasPicture: Boolean): Set<String> {
        val hosts = ALWAYS.toMutableSet()
        for (n in 1..tokenizers) hosts += listOf("tokens/$n", "attention_mask/$n")
        if (guidance == Guidance.EMBEDDED) hosts += "guidance"
        if (hasPicture) hosts += "picture"
        return hosts
    }

    /** Throws Refusal where a stage takes a value that is neither among `hosts` nor made by a call before. */
    fun checkGiven(stages: List<Stage>, hosts: Set<String>) {
        val there = hosts.toMutableSet()
        for (call in stages.flatMap { it.calls }) {
            val lacking = call.inputs.values.flatMap { it.names }.firstOrNull { it !in there }
            if (lacking != null) throw Refusal("the host value $lacking, which is not given here")
            there += call.outputs.values
        }
    }

    /** Throws Refusal where a graph that decodes is not made for tiles of these latents. */
    fun checkDecoder(tiles: Tiles, channels: Int) {
        for (call in stages.filter { it.name == DECODE }.flatMap { it.calls }) {
            val spec = specs.getValue(call.graph)
            val takes = call.inputs.filterValues { it is Source.Value && LATENTS in it.names }.keys.map(spec::input)
            val makes = call.outputs.filterValues { it == DECODED }.keys.map(spec::output)
            val isGood = takes.all { it!!.resolve().contentEquals(tiles.shape(channels)) } &&
                makes.all { it!!.resolve().contentEquals(tiles.pictureShape) }
            if (!isGood) throw Refusal("vae.tile_size, which the graph ${call.graph} is not made for")
        }
    }

    /** For each call of a stage, the inputs that depend on the half of guidance. */
    fun dependsOnHalf(stage: Stage): List<Set<String>> {
        val dependent = encoded.toMutableSet()
        fun depends(source: Source) = source.names.any { it in dependent || HALF.matches(it) }
        return stage.calls.map { call ->
            val found = call.inputs.filterValues(::depends).keys
            if (found.isNotEmpty()) dependent += call.outputs.values
            found
        }
    }

    /** Whether every graph of the stage may be called once for both halves. */
    fun canStack(stage: Stage): Boolean = stage.calls.zip(dependsOnHalf(stage)).all { (call, inputs) ->
        inputs.all { specs.getValue(call.graph).input(it)?.shape?.firstOrNull()?.name != null }
    }

    companion object {
        const val ENCODE_PROMPT = "encode_prompt"
        const val ENCODE_IMAGE = "encode_image"
        const val DENOISE = "denoise"
        const val DECODE = "decode"
        private const val LATENTS = "decoder_latents"
        private const val DECODED = "decoded"
        internal val STAGES = listOf(ENCODE_PROMPT, ENCODE_IMAGE, DENOISE, DECODE, "preview") // in the order of running
        private val ALWAYS = listOf("latents", "scaled_latents", "timestep", "decoder_latents", "time_ids")
        private val HALF = Regex("(?:tokens|attention_mask)/[0-9]+|time_ids")

        /** Throws Refusal for what this engine does not know, also in variants that it would not take. */
        fun read(node: JsonNode, specs: Map<String, GraphSpec>, tokenizers: Int): Program {
            fun <T> one(all: Array<T>, text: (T) -> String, value: String, what: String): T =
                all.firstOrNull { text(it) == value } ?: throw Refusal("the $what $value")

            val stages = node["stages"].items().mapNotNull { stage ->
                val name = stage["stage"].text()
                val isRequired = stage.optional("required") { it.boolean() } ?: true
                if (name !in STAGES && isRequired) throw Refusal("the required stage $name")
                if (name in STAGES) Stage.read(stage) else null
            }
            ProgramCheck(specs, tokenizers).check(stages)
            val absent = node["absent_negative"].text()
            if (absent != "zeros" && absent != "encode_empty") throw Refusal("the absent_negative $absent")
            return Program(
                guidance = one(Guidance.values(), { it.text }, node["guidance"].text(), "guidance kind"),
                absentIsZeros = absent == "zeros",
                draws = node["draws"].texts().map { draw -> one(Draw.values(), { it.text }, draw, "draw") },
                stages = stages,
                specs = specs,
            )
        }
    }
}
