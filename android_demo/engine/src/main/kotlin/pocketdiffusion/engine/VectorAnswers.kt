package pocketdiffusion.engine

import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.charset.CharacterCodingException
import java.security.MessageDigest

/** What this engine makes of a case of a conformance vector, by the vector's kind. */
internal class VectorAnswers(private val generator: Generator) {
    private val pipeline = generator.pipeline

    /** Arrays by the names of `expected`; null for a kind that this engine does not know. */
    fun answer(kind: String, case: VectorCase): Map<String, Tensor>? = when (kind) {
        "tokens" -> tokens(case)
        "vocabulary" -> vocabulary(tokenizerOf(case))
        "noise" -> noise(case)
        "start" -> mapOf("latents" to rows(eachRun(case).map { run -> firstOf(run, case) }))
        "run" -> runs(case)
        "whole_run" -> wholeRun(case)
        "guidance" -> guidance(case)
        "decoder_scale" -> case.arrays.getValue("latents").let {
            mapOf("decoder_latents" to Tensor.of(it.shape, Latents.toDecoder(it.floats(), pipeline.vae)))
        }
        "posterior" -> posterior(case)
        "picture_to_array" -> mapOf("array" to pictureOf(case.arrays.getValue("picture")).toTensor())
        "array_to_picture" -> case.arrays.getValue("array").let { array ->
            val (height, width) = array.shape[2] to array.shape[3]
            val picture = Picture.of(array.floats(), width, height)
            mapOf("picture" to bytes(picture.rgb, intArrayOf(height, width, 3)))
        }
        else -> null
    }

    private fun tokenizerOf(case: VectorCase): Tokenizer {
        val number = case.numbers["tokenizer"]?.toInt() ?: 1
        return generator.tokenizers.getOrNull(number - 1) ?: throw Refusal("tokenizer $number")
    }

    private fun tokens(case: VectorCase): Map<String, Tensor> {
        val made = tokenizerOf(case).input(case.texts.getValue("prompt"))
        val shape = intArrayOf(made.ids.size)
        val cut = made.cut.toByteArray()
        return mapOf(
            "ids" to Tensor.of(shape, made.ids),
            "mask" to Tensor.of(shape, made.mask),
            "cut" to bytes(cut, intArrayOf(cut.size)),
        )
    }

    private fun vocabulary(tokenizer: Tokenizer): Map<String, Tensor> {
        val entries = tokenizer.pairs.ids.entries.sortedBy { it.value }
        val byteOf = BytePairs.CHARACTERS.withIndex().associate { (byte, character) -> character to byte }
        val ids = ByteArrayOutputStream()
        val four = ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN)
        for ((token, _) in entries) {
            val text = textOf(token.removeSuffix(BytePairs.END), byteOf) ?: continue
            for (id in tokenizer.ids(text) + -1) ids.write(four.putInt(0, id).array())
        }
        return mapOf(
            "vocabulary" to digest(entries.joinToString("") { "${it.key} ${it.value}\n" }.toByteArray()),
            "merges" to digest(tokenizer.pairs.ranks.keys.joinToString("") { "$it\n" }.toByteArray()),
            "entries" to digest(ids.toByteArray()),
        )
    }

    /** The text whose bytes the characters of a token stand for, or null where it is none. */
    private fun textOf(token: String, byteOf: Map<Char, Int>): String? {
        val bytes = ByteArray(token.length) { (byteOf[token[it]] ?: return null).toByte() }
        return try {
            Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
        } catch (_: CharacterCodingException) {
            null
        }
    }

    private fun noise(case: VectorCase): Map<String, Tensor> {
        val random = TorchRandom(case.texts.getValue("seed"))
        val draws = case.arrays.getValue("sizes").ints().map { random.normal(it) }
        val draw = case.arrays.getValue("draw").ints()
        val at = case.arrays.getValue("at").ints()
        return mapOf("values" to vector(FloatArray(at.size) { draws[draw[it]][at[it]] }))
    }

    private fun eachRun(case: VectorCase): List<StepRun> {
        val starts = case.arrays.getValue("starts").ints()
        return case.arrays.getValue("steps").ints().mapIndexed { i, steps ->
            generator.tables.read(case.texts.getValue("sampler"), steps, starts[i])
        }
    }

    private fun firstOf(run: StepRun, case: VectorCase): FloatArray =
        Latents.first(run, case.arrays.getValue("noise").floats().copyOf(WIDTH), case.arrays["image"]?.floats())

    /** One run, whose model is an arithmetic with recorded outputs. */
    private inner class Run(run: StepRun, case: VectorCase) {
        val timesteps = run.rows.map { it.timestep }
        val scaled = ArrayList<FloatArray>()
        val latents = ArrayList<FloatArray>()

        init {
            val outputs = case.arrays.getValue("outputs").floats()
            val noise = case.arrays.getValue("noise").floats()
            val denoising = Denoising(firstOf(run, case))
            for ((r, row) in run.rows.withIndex()) {
                val given = denoising.scaled(row)
                val moved = row.timestep / 1000f
                val output = FloatArray(WIDTH) { outputs[r * WIDTH + it] + 0.25f * given[it] + moved }
                denoising.advance(row, output, noise.copyOfRange((r + 1) * WIDTH, (r + 2) * WIDTH))
                scaled += given
                latents += denoising.latents
            }
        }
    }

    private fun runs(case: VectorCase): Map<String, Tensor> {
        val all = eachRun(case).map { Run(it, case).latents }
        val means = all.map { run -> FloatArray(WIDTH) { i -> (run.sumOf { it[i].toDouble() } / run.size).toFloat() } }
        return mapOf("latents" to rows(all.map { it.last() }), "means" to rows(means))
    }

    private fun wholeRun(case: VectorCase): Map<String, Tensor> {
        val run = Run(eachRun(case)[0], case)
        return mapOf(
            "timesteps" to vector(run.timesteps.toFloatArray()),
            "scaled" to rows(run.scaled),
            "latents" to rows(run.latents),
        )
    }

    private fun guidance(case: VectorCase): Map<String, Tensor> {
        val scale = case.numbers.getValue("guidance")
        val (negative, positive) = listOf("negative", "positive").map { case.arrays.getValue(it) }
        val output = if (scale > 1) Latents.guide(negative.floats(), positive.floats(), scale) else positive.floats()
        return mapOf("output" to Tensor.of(positive.shape, output))
    }

    private fun posterior(case: VectorCase): Map<String, Tensor> {
        val noise = case.arrays.getValue("noise")
        val z = Latents.sample(case.arrays.getValue("parameters").floats(), noise.floats())
        return mapOf("latents" to Tensor.of(noise.shape, Latents.fromEncoder(z, pipeline.vae)))
    }

    private companion object {
        const val WIDTH = 16 // values in a row of the vectors' latents

        fun vector(values: FloatArray) = Tensor.of(intArrayOf(values.size), values)

        fun rows(rows: List<FloatArray>): Tensor =
            Tensor.of(intArrayOf(rows.size, WIDTH), FloatArray(rows.size * WIDTH) { rows[it / WIDTH][it % WIDTH] })

        fun bytes(bytes: ByteArray, shape: IntArray) = Tensor.make(DType.UINT8, shape) { it.put(bytes) }

        fun digest(bytes: ByteArray) = bytes(MessageDigest.getInstance("SHA-256").digest(bytes), intArrayOf(32))

        fun pictureOf(array: Tensor): Picture {
            val rgb = ByteArray(array.count).also { array.bytes().get(it) }
            return Picture(array.shape[1], array.shape[0], rgb)
        }
    }
}
