package pocketdiffusion.engine

/** pipeline/FORMAT.json: all that changes a picture and is not in a file of its own (docs/BUNDLE.md, section 3). */
class Pipeline(
    val format: String,
    val width: Int,
    val height: Int,
    /** [1, channels, height, width] */
    val latents: IntArray,
    val vae: Vae,
    /** In which the picture is decoded; null: as one. */
    val tiles: Tiles?,
    val tokenizers: List<TokenizerIndex>,
    val program: Program,
    val steps: StepIndex,
    val defaults: Defaults,
    val preview: Preview?,
    val graphs: Map<String, PipelineGraph>,
) {
    /** Both factors are rounded to float32. */
    class Vae(val scalingFactor: Float, val shiftFactor: Float)

    /** What to draw with where the user says nothing. */
    class Defaults(val steps: Int, val guidance: Double, val strength: Double)

    /** How a rough picture is made of latents. */
    class Preview(val matrix: List<DoubleArray>, val bias: DoubleArray)

    /** The graphs that a stage calls, in the order of their first calls. */
    fun graphsOf(stage: Stage): List<PipelineGraph> = stage.calls.map { graphs.getValue(it.graph) }.distinct()

    companion object {
        /** Throws Refusal for what this engine does not know, Contradiction for what cannot be. */
        fun read(format: String, node: JsonNode): Pipeline {
            val size = node["latents"]
            val latents = listOf("channels", "height", "width").map { size[it].int() }
            val graphs = node["graphs"].entries().mapValues { (name, graph) -> PipelineGraph.read(name, graph) }
            val tokenizers = node["tokenizers"].items().map { TokenizerIndex.read(it) }
            val program = Program.read(node["program"], graphs.mapValues { it.value.spec }, tokenizers.size)
            val channels = intArrayOf(1) + latents
            val tiles = Tiles.read(node["vae"], channels, size["scale"].int())
            if (tiles != null) program.checkDecoder(tiles, channels[1])
            return Pipeline(
                format = format,
                width = node["picture"]["width"].int(),
                height = node["picture"]["height"].int(),
                latents = channels,
                vae = Vae(
                    node["vae"]["scaling_factor"].number().toFloat(),
                    node["vae"]["shift_factor"].number().toFloat(),
                ),
                tiles = tiles,
                tokenizers = tokenizers,
                program = program,
                steps = StepIndex.read(node["steps"]),
                defaults = node["defaults"].let {
                    Defaults(it["steps"].int(), it["guidance"].number(), it["strength"].number())
                },
                preview = node.optional("preview") { readPreview(it, latents[0]) },
                graphs = graphs,
            )
        }

        private fun readPreview(node: JsonNode, channels: Int): Preview {
            fun numbers(list: JsonNode) = list.items().map { it.number() }.toDoubleArray()
            val preview = Preview(node["matrix"].items().map(::numbers), numbers(node["bias"]))
            if (preview.matrix.size != channels || (preview.matrix + preview.bias).any { it.size != 3 }) {
                node.fail("it is not made for $channels channels")
            }
            return preview
        }
    }
}
