package pocketdiffusion.engine

/**
 * The arithmetic on latents, all of it in float32: every product and every sum is rounded, in the order that
 * docs/BUNDLE.md writes (sections 4, 7 and 9).
 */
object Latents {
    /**
     * The sum of factor * array from left to right, beginning with zero; a product whose factor is 0 is left out.
     */
    fun weighted(size: Int, vararg terms: Pair<Float, FloatArray?>): FloatArray {
        val sum = FloatArray(size)
        for ((factor, values) in terms) {
            if (factor == 0f) continue
            checkNotNull(values) { "a factor is not 0 where there is no value" }
            for (i in sum.indices) sum[i] += factor * values[i]
        }
        return sum
    }

    /** negative + g * (positive - negative) */
    fun guide(negative: FloatArray, positive: FloatArray, guidance: Double): FloatArray {
        val g = guidance.toFloat()
        return FloatArray(negative.size) { i -> negative[i] + g * (positive[i] - negative[i]) }
    }

    /** The latents before the first row; `image` are those of image to image, or null. */
    fun first(run: StepRun, noise: FloatArray, image: FloatArray?): FloatArray = if (image == null) {
        weighted(noise.size, run.initNoiseSigma to noise)
    } else {
        weighted(noise.size, run.rows[0].signalScale to image, run.rows[0].noiseScale to noise)
    }

    /** What the decoder takes. */
    fun toDecoder(latents: FloatArray, vae: Pipeline.Vae): FloatArray =
        FloatArray(latents.size) { latents[it] / vae.scalingFactor + vae.shiftFactor }

    /** From the VAE's scale to the UNet's. */
    fun fromEncoder(latents: FloatArray, vae: Pipeline.Vae): FloatArray =
        FloatArray(latents.size) { (latents[it] - vae.shiftFactor) * vae.scalingFactor }

    /** A draw from a posterior: means, then logarithms of variances. */
    fun sample(posterior: FloatArray, noise: FloatArray): FloatArray {
        val half = posterior.size / 2
        return FloatArray(half) { i ->
            val log = Math.min(Math.max(posterior[half + i], -30f), 20f)
            posterior[i] + Math.exp((0.5f * log).toDouble()).toFloat() * noise[i]
        }
    }
}

/** The latents on their way through the rows of a run, with the history that the rows look back on. */
class Denoising(latents: FloatArray) {
    var latents = latents
        private set
    private val history = ArrayDeque<FloatArray>() // newest first

    fun scaled(row: StepRow): FloatArray = Latents.weighted(latents.size, row.inputScale to latents)

    /** One row, with the UNet's guided output and, where the row's c is not 0, noise. */
    fun advance(row: StepRow, output: FloatArray, noise: FloatArray?) {
        history.addFirst(Latents.weighted(latents.size, row.p to latents, row.q to output))
        if (history.size > StepTables.HISTORY) history.removeLast()
        val looks = row.b.mapIndexed { i, factor -> factor to history.getOrNull(i) }
        latents = Latents.weighted(latents.size, row.a to latents, *looks.toTypedArray(), row.c to noise)
    }
}
