package pocketdiffusion.engine

import kotlin.test.Test
import kotlin.test.assertTrue

/**
 * What the engine does beside the graphs, for one picture of 512x512 in 20 steps: tokens of two prompts, noise,
 * samplers, levels. It has to be under 2 % of the UNet's calls. `-DunetSeconds=S` says what a call of SD 1.5's UNet
 * takes on a thread of this machine (benchmarks/full_size_unet.py); 1 s, if it is not given, is less than any
 * processor needs.
 */
class HostWorkTest {
    private val generator = Generator(Bundle.open(Bundles.emoji), OrtEngine(threads = 1))
    private val latents = intArrayOf(1, 4, 64, 64)
    private val decoded = FloatArray(3 * 512 * 512) { (it % 4001) / 2000f - 1f }

    /** Seconds of each part. */
    private fun measure(): Map<String, Double> {
        val seconds = LinkedHashMap<String, Double>()
        fun <T> part(name: String, work: () -> T): T {
            val began = System.nanoTime()
            return work().also { seconds[name] = (System.nanoTime() - began) / 1e9 }
        }
        part("tokens of two prompts") {
            val prompts = listOf("a photograph of an astronaut riding a horse, ".repeat(8), "blurry")
            prompts.map { generator.tokenizers[0].input(it) }
        }
        val noise = part("noise") { TorchRandom("7").normal(Tensor.countOf(latents)) }
        part("20 steps") {
            val run = generator.tables.read(generator.pipeline.steps.defaultSampler, 20)
            val denoising = Denoising(Latents.first(run, noise, null))
            for (row in run.rows) {
                Tensor.of(latents, denoising.scaled(row))
                denoising.advance(row, Latents.guide(noise, denoising.latents, 7.5), noise)
            }
        }
        part("a picture of 512x512") { Picture.of(decoded, 512, 512) }
        return seconds
    }

    @Test
    fun itIsSmallBesideTheUnet() {
        val runs = List(5) { measure() }
        val best = runs.minByOrNull { it.values.sum() }!!
        val total = best.values.sum()
        val unet = 20 * (System.getProperty("unetSeconds").orEmpty().toDoubleOrNull() ?: 1.0)
        for ((name, seconds) in best) println("HOST %-24s %8.2f ms".format(name, seconds * 1e3))
        println("HOST %-24s %8.2f ms, first time %.2f ms".format("all", total * 1e3, runs[0].values.sum() * 1e3))
        println("HOST of 20 UNet calls, %.1f s: %.3f %%".format(unet, 100 * total / unet))
        assertTrue(total < 0.02 * unet)
    }
}
