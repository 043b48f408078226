package pocketdiffusion.engine

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** Bundles of other devices: what another phone's cannot do here, and what it can. */
class OtherDeviceTest {
    @TempDir
    lateinit var scratch: Path

    private val folder by lazy { Forgery.copy(Bundles.kit.resolve("pndm"), scratch) }

    private fun device(maker: String, model: String) =
        Device(maker, model, soc = null, os = ProgramVersion("Android", "14"), app = ProgramVersion("test", "1"))

    private fun target(title: String, soc: String?, memoryMb: Int?) = Manifest.Target("some", title, soc, memoryMb)

    @Test
    fun anIphonesBundleIsRefusedByItsFormat() {
        Forgery.change(folder, FileTable.MANIFEST, "formats") {
            JsonObject(mapOf("coreml" to (it as JsonObject).getValue("onnx")))
        }
        val error = assertFailsWith<CannotRunHere> { Generator(Bundle.open(folder), OrtEngine()) }
        assertEquals("the bundle cannot be run here: it holds coreml, and this app runs onnx.", error.message)
    }

    @Test
    fun anotherProcessorsCodeIsRefusedByItsName() {
        Forgery.change(folder, "pipeline/onnx.json", "graphs", "vae_decoder") {
            val processors = JsonArray(listOf("SM8650", "SM8750").map(::JsonPrimitive))
            JsonObject((it as JsonObject) + ("compiled_for" to processors))
        }

        fun open(soc: String?, wished: String = "cpu") =
            ChangedEngine(OrtEngine(threads = 1, soc = soc), listOf("cpu", "npu"))
                .let { engine -> Generator(Bundle.open(folder), engine, wishedUnit = { wished }) }
        for (soc in listOf("SM8750-AB", "sm8650")) open(soc).use { it.draw(Request("x", seed = "1", steps = 1)) }
        for (wished in listOf("cpu", "npu")) {
            val error = assertFailsWith<CannotRunHere> { open("Tensor G3", wished) }
            assertEquals("vae_decoder", error.graph)
            assertEquals("its file holds the code of SM8650 or SM8750, and this phone has Tensor G3", error.why)
        }
        assertTrue("does not name its processor" in assertFailsWith<CannotRunHere> { open(null) }.why)
    }

    @Test
    fun anotherPhonesBundleIsDrawnWithANotice() {
        val pixel = target("Google Pixel 8", "Google Tensor G3", 8192)
        assertNull(pixel.noticeOn(device("Google", "Pixel 8")))
        assertNull(pixel.noticeOn(device("google", "pixel 8")))
        val notice = pixel.noticeOn(device("samsung", "SM-S921B"))!!
        assertTrue("Google Pixel 8" in notice && "samsung SM-S921B" in notice, notice)
        assertTrue("Pixel 8 Pro" in pixel.noticeOn(device("Google", "Pixel 8 Pro"))!!)
        assertNull(target("Any device", null, null).noticeOn(device("samsung", "SM-S921B")))
        for (name in listOf("soc", "memory_mb")) {
            val value = if (name == "soc") JsonPrimitive("Google Tensor G3") else JsonPrimitive(8192)
            Forgery.change(folder, FileTable.MANIFEST, "target", name) { value }
        }
        val bundle = Bundle.open(folder)
        assertTrue("Any device" in bundle.manifest.target.noticeOn(device("samsung", "SM-S921B"))!!)
        Generator(bundle, OrtEngine(threads = 1)).use { it.draw(Request("x", seed = "1", steps = 1)) }
    }
}
