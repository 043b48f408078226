package pocketdiffusion.engine

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory
import java.nio.file.Path
import kotlin.test.assertTrue

/** Pictures that were drawn elsewhere are drawn again. */
class KitTest {
    /** The reader's kit: bundles of six kinds, among them SDXL, and the pictures of diffusers' own pipelines. */
    @TestFactory
    fun theKitsPictures(): List<DynamicTest> = testsOf(Bundles.kit)

    /** What Python draws with the bundles of draw_requests.py: each sampler, 1 to 50 steps, image to image. */
    @TestFactory
    fun pythonsPictures(): List<DynamicTest> = testsOf(Bundles.requests)

    private fun testsOf(folder: Path): List<DynamicTest> {
        val redraw = Redraw(folder)
        return redraw.pictures.flatMap { picture ->
            listOf(false, true).map { oneBatch ->
                DynamicTest.dynamicTest("$picture${if (oneBatch) ", both halves in one call" else ""}") {
                    val db = redraw.psnr(picture, oneBatch)
                    assertTrue(db >= Redraw.FLOOR_DB, "$picture has $db dB")
                }
            }
        }
    }
}
