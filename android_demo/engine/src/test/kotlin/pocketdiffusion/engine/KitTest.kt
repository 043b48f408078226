package pocketdiffusion.engine

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory
import java.nio.file.Files
import java.nio.file.Path
import kotlin.test.assertTrue

/** Pictures that were drawn elsewhere are drawn again. */
class KitTest {
    /** The reader's kit: bundles of six kinds, among them SDXL, and the pictures of diffusers' own pipelines. */
    @TestFactory
    fun theKitsPictures(): List<DynamicTest> = requestsOf(Bundles.kit)

    /** What Python draws with the bundles of draw_requests.py: each sampler, 1 to 50 steps, image to image. */
    @TestFactory
    fun pythonsPictures(): List<DynamicTest> = requestsOf(Bundles.requests)

    private fun requestsOf(folder: Path): List<DynamicTest> {
        val requests = JsonNode.parse(Files.readAllBytes(folder.resolve("requests.json")), "requests.json")
        val photo = Png.read(Files.readAllBytes(folder.resolve(requests["photo"].text())), "photo")
        val generators = HashMap<String, Generator>()
        return requests["draw"].items().flatMap { told ->
            val bundle = told["bundle"].text()
            val expected = told["picture"].text()
            listOf(false, true).map { oneBatch ->
                DynamicTest.dynamicTest("$expected${if (oneBatch) ", both halves in one call" else ""}") {
                    val generator = generators.getOrPut(bundle) {
                        Generator(Bundle.open(folder.resolve(bundle)), OrtEngine(threads = 1), Residency.KEEP)
                    }
                    val original = Png.read(Files.readAllBytes(folder.resolve(expected)), expected)
                    val db = Compare.psnr(original, generator.draw(read(told, photo, oneBatch)).picture)
                    assertTrue(db >= FLOOR_DB, "$expected has $db dB")
                }
            }
        }
    }

    private fun read(told: JsonNode, photo: Picture, oneBatch: Boolean): Request {
        val strength = told.optional("strength") { it.number() }
        return Request(
            prompt = told["prompt"].text(),
            negativePrompt = told.optional("negative_prompt") { it.text() },
            seed = told["seed"].text(),
            steps = told.optional("steps") { it.int() },
            guidance = told.optional("guidance") { it.number() },
            sampler = told.optional("sampler") { it.text() },
            picture = if (strength == null) null else photo,
            strength = strength,
            oneBatch = oneBatch,
        )
    }

    private companion object {
        const val FLOOR_DB = 60.0
    }
}
