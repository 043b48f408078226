package pocketdiffusion.engine

import java.nio.file.Files
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue

class UnitVerdictsTest {
    private val os = ProgramVersion("Android", "15")
    private val device = Device("Nobody", "JVM", null, os, ProgramVersion("engine test", "1"))
    private val bundle = Bundle.open(Bundles.kit.resolve("pndm"))
    private val graphs = bundle.pipeline(listOf("onnx")).graphs

    private fun tested(change: (String, Values) -> Values): DeviceReport {
        val engine = ChangedEngine(OrtEngine(threads = 1), units = listOf("cpu", "gpu"), after = change)
        return Generator(bundle, engine).use { SelfTest(it, engine, device).run(calls = 1) }
    }

    @Test
    fun aUnitOfWhichNothingIsKnownIsAllowedOnceItsTestPassed() {
        val verdicts = UnitVerdicts(os)
        val unet = graphs.getValue("unet")
        assertTrue(verdicts.allow(bundle, unet, "cpu"))
        assertFalse(verdicts.allow(bundle, unet, "gpu"))
        assertFalse(verdicts.allow(bundle, unet, "npu")) // known to be bad
        verdicts.remember(bundle, tested { _, values -> values })
        assertTrue(verdicts.allow(bundle, unet, "gpu"))
        assertFalse(verdicts.allow(bundle, unet, "npu"))
    }

    @Test
    fun aVerdictIsOfAGraphAUnitAndAnOperatingSystem() {
        val store = Files.createTempFile("units", ".txt")
        val verdicts = UnitVerdicts(os, store)
        verdicts.remember(
            bundle,
            tested { name, values ->
                if (name == "vae_decoder") throw NotFinite(name, values.keys.first()) else values
            },
        )
        val again = UnitVerdicts(os, store)
        assertEquals(true, again.passed(bundle, "unet", "gpu"))
        assertEquals(false, again.passed(bundle, "vae_decoder", "gpu"))
        assertFalse(again.allow(bundle, graphs.getValue("vae_decoder"), "gpu"))
        assertNull(again.passed(Bundle.open(Bundles.emoji), "unet", "gpu"))
        assertNull(UnitVerdicts(ProgramVersion("Android", "16"), store).passed(bundle, "unet", "gpu"))
    }
}
