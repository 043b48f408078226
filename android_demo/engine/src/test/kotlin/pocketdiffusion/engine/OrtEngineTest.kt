package pocketdiffusion.engine

import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.concurrent.thread
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class OrtEngineTest {
    @TempDir
    lateinit var scratch: Path

    private val engine = OrtEngine(threads = 1)

    private fun unetOf(folder: Path): Pair<Bundle, PipelineGraph> {
        val bundle = Bundle.open(folder)
        return bundle to bundle.pipeline(listOf("onnx")).graphs.getValue("unet")
    }

    private fun inputsOf(bundle: Bundle) =
        bundle.manifest.golden.getValue("unet").inputs.mapValues { bundle.array(it.value) }

    @Test
    fun aCallIsStoppedFromAnotherThread() {
        val (bundle, unet) = unetOf(Bundles.kit.resolve("pndm")) // its batch is open
        engine.open(bundle, unet, "cpu").use { runner ->
            val inputs = inputsOf(bundle)
            val many = inputs.mapValues { (name, value) ->
                if (name == "timestep") value else Tensor.concat(List(4096) { value }, 0) // a second or more
            }
            runner.run(inputs)
            val cancellation = Cancellation()
            thread { Thread.sleep(50).also { cancellation.cancel() } }
            val began = System.nanoTime()
            assertFailsWith<Cancelled> { runner.run(many, cancellation) }
            val seconds = (System.nanoTime() - began) / 1e9
            runner.run(inputs)
            println("cancelled after $seconds s")
        }
    }

    @Test
    fun whatIsNotFiniteIsAnErrorThatNamesTheGraph() {
        val (bundle, unet) = unetOf(Bundles.emoji)
        engine.open(bundle, unet, "cpu").use { runner ->
            val broken = inputsOf(bundle) + ("timestep" to Tensor.of(intArrayOf(1), floatArrayOf(Float.NaN)))
            val error = assertFailsWith<NotFinite> { runner.run(broken) }
            assertEquals(listOf("unet", "out_sample"), listOf(error.graph, error.output))
        }
    }

    @Test
    fun inputsThatDoNotFitAreNamed() {
        val (bundle, unet) = unetOf(Bundles.emoji)
        engine.open(bundle, unet, "cpu").use { runner ->
            val inputs = inputsOf(bundle)
            for (wrong in listOf(Tensor.of(intArrayOf(2), FloatArray(2)), Tensor.of(intArrayOf(1), IntArray(1)))) {
                val error = assertFailsWith<EngineFailure> { runner.run(inputs + ("timestep" to wrong)) }
                assertTrue("timestep" in error.said, error.said)
            }
            assertTrue("sample" in assertFailsWith<EngineFailure> { runner.run(inputs - "sample") }.said)
            val two = inputs + ("sample" to Tensor.concat(List(2) { inputs.getValue("sample") }, 0))
            assertFailsWith<EngineFailure> { runner.run(two) } // the same free axis has two lengths
        }
    }

    @Test
    fun unitsAndEnginesThatTheManifestRulesOutAreRefused() {
        val folder = Forgery.copy(Bundles.kit.resolve("pndm"), scratch)

        fun change(vararg keys: String, value: Any) {
            val json = if (value is Number) JsonPrimitive(value) else JsonPrimitive("$value")
            Forgery.change(folder, "pipeline/onnx.json", "graphs", "unet", *keys) { json }
        }

        fun open(unit: String = "cpu") = unetOf(folder).let { (bundle, unet) -> engine.open(bundle, unet, unit) }
        open().close()
        assertEquals("gpu", assertFailsWith<UnitNotHere> { open("gpu") }.unit)
        change("engine", "least_version", value = "99.1")
        assertEquals("99.1", assertFailsWith<EngineTooOld> { open() }.needs)
        change("engine", "least_version", value = "1.9")
        open().close()
        change("engine", "name", value = "coreml")
        assertFailsWith<CannotRunHere> { open() }
        change("engine", "name", value = "onnxruntime")
        change("units", "cpu", "status", value = "bad")
        assertEquals("unet", assertFailsWith<UnitKnownBad> { open() }.graph)
    }

    @Test
    fun aFileThatIsNoGraphSaysSo() {
        val folder = Forgery.copy(Bundles.kit.resolve("pndm"), scratch)
        val file = folder.resolve("onnx/unet/model.onnx")
        val bytes = file.readBytes()
        file.writeBytes(bytes.copyOf(bytes.size / 2))
        Forgery.seal(folder)
        val (bundle, unet) = unetOf(folder)
        assertEquals("unet", assertFailsWith<EngineFailure> { engine.open(bundle, unet, "cpu") }.graph)
        folder.resolve("onnx/vae_decoder/model.onnx").readBytes().let(file::writeBytes)
        Forgery.seal(folder)
        val (other, swapped) = unetOf(folder)
        assertFailsWith<EngineFailure> { engine.open(other, swapped, "cpu") }
    }

    @Test
    fun aUnitThatThisBuildHasNotIsNoSilentCpu() {
        val (bundle, unet) = unetOf(Bundles.emoji)
        val error = assertFailsWith<EngineFailure> { OrtEngine(xnnpack = true).open(bundle, unet, "cpu") }
        assertTrue("XNNPACK" in error.said, error.said)
        val decoder = bundle.pipeline(listOf("onnx")).graphs.getValue("vae_decoder")
        val qnn = OrtEngine(qnnLibrary = "libQnnHtp.so")
        assertEquals("float16", qnn.arithmeticOf(decoder, "npu"))
        val refused = assertFailsWith<EngineFailure> { qnn.open(bundle, decoder, "npu") }
        assertTrue("QNN" in refused.said, refused.said)
        Generator(bundle, qnn, wishedUnit = { "npu" }).use {
            it.draw(Request("red apple", seed = "1", steps = 1))
            assertEquals(setOf("text_encoder", "unet", "vae_decoder"), it.fallbacks.keys)
        }
    }

    @Test
    fun versionsAreComparedAsNumbers() {
        assertTrue(isOlder("1.9.0", "1.18"))
        assertFalse(isOlder("1.29.0", "1.18"))
        assertFalse(isOlder("1.18", "1.18.0"))
        assertTrue(isOlder("1.18", "1.18.1"))
    }
}
