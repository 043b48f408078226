package pocketdiffusion.engine

/** manifest.json: what the bundle is, its formats, its proof in short, and the table of all files. */
class Manifest private constructor(
    val model: String,
    val licence: String,
    val attribution: String,
    val target: Target,
    /** The pipeline file of each format. */
    val formats: Map<String, String>,
    val proof: Proof,
    val picture: OriginalPicture?,
    val golden: Map<String, GoldenCase>,
    val conformance: List<String>,
    val runtimeId: String,
    val bundleId: String,
    val files: FileTable,
) {
    /** For which phone the bundle was made. */
    class Target(val name: String, val title: String, val soc: String?, val memoryMb: Int?) {
        /** A sentence for people where that is another phone, which is no fault; null: it is this one, or any. */
        fun noticeOn(device: Device): String? {
            val names = listOf(device.model, "${device.maker} ${device.model}")
            val isThis = names.any { it.equals(title, ignoreCase = true) }
            if (isThis || soc == null && memoryMb == null) return null
            return "This bundle was made for the $title, and this phone is a ${names[1]}: it may be slow " +
                "here, or take too much memory. The self-test shows whether it is the same model."
        }
    }

    class Proof(val passed: Boolean, val worst: String?)

    /** One recorded call of the original. */
    class GoldenCase(val label: String, val inputs: Map<String, ArrayRef>, val outputs: Map<String, ArrayRef>)

    /** One picture by the original, and all that it takes to draw it again. */
    class OriginalPicture(
        val image: String,
        val prompt: String,
        val negativePrompt: String?,
        val seed: String,
        val steps: Int,
        val sampler: String,
        val guidance: Double,
    )

    companion object {
        fun read(node: JsonNode): Manifest {
            val files = FileTable.read(node)
            val manifest =
                Manifest(
                    model = node["model"]["name"].text(),
                    licence = node["model"]["licence"].text(),
                    attribution = node["model"].optional("attribution") { it.text() } ?: "",
                    target = readTarget(node["target"]),
                    formats = node["formats"].entries().mapValues { (_, format) -> format["pipeline"].text() },
                    proof = readProof(node["proof"]),
                    picture = node.optional("picture", ::readPicture),
                    golden = node["golden"].entries().mapValues { (_, case) -> readCase(case) },
                    conformance = node["conformance"].texts(),
                    runtimeId = node["runtime_id"].text(),
                    bundleId = node["bundle_id"].text(),
                    files = files,
                )
            if (manifest.runtimeId != files.runtimeId) node["runtime_id"].fail("it is not that of the file table")
            if (manifest.bundleId != files.bundleId) node["bundle_id"].fail("it is not that of the file table")
            return manifest
        }

        private fun readTarget(node: JsonNode) = Target(
            name = node["name"].text(),
            title = node["title"].text(),
            soc = node.optional("soc") { it.text() },
            memoryMb = node.optional("memory_mb") { it.int() },
        )

        private fun readProof(node: JsonNode) =
            Proof(passed = node["passed"].boolean(), worst = node.optional("worst") { it["subject"].text() })

        private fun readCase(node: JsonNode) = GoldenCase(
            label = node["label"].text(),
            inputs = node["inputs"].entries().mapValues { (_, ref) -> ArrayRef.read(ref) },
            outputs = node["outputs"].entries().mapValues { (_, ref) -> ArrayRef.read(ref) },
        )

        private fun readPicture(node: JsonNode) = OriginalPicture(
            image = node["image"].text(),
            prompt = node["prompt"].text(),
            negativePrompt = node.optional("negative_prompt") { it.text() },
            seed = node["seed"].text(),
            steps = node["steps"].int(),
            sampler = node["sampler"].text(),
            guidance = node["guidance"].number(),
        )
    }
}

/** An array in a file of its own: little-endian, C order, nothing else. */
class ArrayRef(val path: String, val dtype: DType, val shape: IntArray) {
    companion object {
        fun read(node: JsonNode) = ArrayRef(node["path"].text(), DType.of(node["dtype"].text()), node["shape"].ints())
    }
}
