package pocketdiffusion.engine

import kotlinx.serialization.json.JsonNull
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

class MemoryEstimateTest {
    @TempDir
    lateinit var scratch: Path

    private fun estimate(folder: Path, hasPicture: Boolean = false) =
        MemoryEstimate(Generator(Bundle.open(folder), OrtEngine(threads = 1)), hasPicture)

    @Test
    fun fewerGraphsAtATimeTakeLessAndWhatFitsIsChosen() {
        val estimate = estimate(Bundles.emoji)
        val (keep, stage, call) = Residency.values().map { estimate.peakBytes(it)!! }
        assertTrue(keep > stage && stage >= call)
        assertTrue(estimate(Bundles.emoji, hasPicture = true).peakBytes(Residency.KEEP)!! > keep)
        assertEquals(Residency.KEEP, estimate.choose(keep))
        assertEquals(Residency.STAGE, estimate.choose(keep - 1))
        assertEquals(Residency.STAGE, estimate.choose(keep, wished = Residency.STAGE))
    }

    @Test
    fun tooLittleMemoryIsRefusedWithWhatWouldFit() {
        val estimate = estimate(Bundles.emoji)
        val needs = estimate.peakBytes(Residency.KEEP)!!
        val error = assertFailsWith<NotEnoughMemory> { estimate.check(Residency.KEEP, needs - 1) }
        assertEquals(listOf(needs, needs - 1), listOf(error.needsBytes, error.leftBytes))
        assertTrue("which fits" in error.message!!, error.message)
        val hopeless = assertFailsWith<NotEnoughMemory> { estimate.check(Residency.KEEP, 1L shl 20) }
        assertNull(hopeless.fits)
        assertTrue("close other apps" in hopeless.message!!)
        assertFailsWith<NotEnoughMemory> { estimate.choose(0) }
        estimate.check(Residency.KEEP, needs)
    }

    @Test
    fun whatIsNotCountedIsLetThrough() {
        val folder = Forgery.copy(Bundles.kit.resolve("pndm"), scratch)
        Forgery.change(folder, "pipeline/onnx.json", "graphs", "unet", "memory") { JsonNull }
        val estimate = estimate(folder)
        assertNull(estimate.peakBytes(Residency.KEEP))
        estimate.check(Residency.KEEP, 0)
        assertEquals(Residency.KEEP, estimate.choose(0))
    }
}
