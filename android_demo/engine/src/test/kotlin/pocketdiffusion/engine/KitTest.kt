package pocketdiffusion.engine

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory
import java.nio.file.Files
import kotlin.test.assertTrue

/** The reader's kit: bundles of six kinds, among them SDXL, and the pictures that Python drew with them. */
class KitTest {
    @TestFactory
    fun everyRequestGivesPythonsPicture(): List<DynamicTest> {
        val kit = Bundles.kit
        val requests = JsonNode.parse(Files.readAllBytes(kit.resolve("requests.json")), "requests.json")
        val photo = Png.read(Files.readAllBytes(kit.resolve(requests["photo"].text())), "photo")
        val generators = HashMap<String, Generator>()
        return requests["draw"].items().flatMap { told ->
            val name = told["bundle"].text()
            val expected = told["picture"].text()
            listOf(false, true).map { oneBatch ->
                DynamicTest.dynamicTest("$expected${if (oneBatch) ", both halves in one call" else ""}") {
                    val generator = generators.getOrPut(name) {
                        Generator(Bundle.open(kit.resolve(name)), OrtEngine(threads = 1), Residency.KEEP)
                    }
                    val strength = told.optional("strength") { it.number() }
                    val request = Request(
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
                    val original = Png.read(Files.readAllBytes(kit.resolve(expected)), expected)
                    val db = Compare.psnr(original, generator.draw(request).picture)
                    assertTrue(db >= 60, "$expected has $db dB")
                }
            }
        }
    }
}
