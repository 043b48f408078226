package pocketdiffusion.app

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import pocketdiffusion.app.OnPhone.words
import pocketdiffusion.engine.Forgery
import java.io.File
import java.nio.file.Files

/** What a person sees of a bundle that is broken or not for this app. */
@RunWith(RobolectricTestRunner::class)
class BundleFaultsTest {
    private val studio get() = OnPhone.app.studio
    private lateinit var screen: MainActivity

    @Before
    fun open() {
        OnPhone.push(name = "good")
        screen = OnPhone.open()
    }

    @Test
    fun `each missing or wrong file is named`() {
        shows("A file of the bundle is missing or wrong", "onnx/unet/model.onnx is missing") {
            File(it, "onnx/unet/model.onnx").delete()
        }
        shows("A file of the bundle is missing or wrong", "notes.txt does not belong to the bundle") {
            File(it, "notes.txt").writeText("x")
        }
        shows("A file of the bundle is missing or wrong", "tokenizer/merges.txt is a link and no file") {
            val file = File(it, "tokenizer/merges.txt").toPath()
            Files.move(file, it.toPath().resolveSibling("merges"))
            Files.createSymbolicLink(file, it.toPath().resolveSibling("merges"))
        }
        shows(
            "2 files of the bundle are missing or wrong",
            "pipeline/onnx.json has the wrong contents\nsteps/tables.bin has the wrong contents",
        ) {
            for (path in listOf("pipeline/onnx.json", "steps/tables.bin")) {
                val bytes = File(it, path).readBytes()
                bytes[bytes.size / 2] = (bytes[bytes.size / 2] + 1).toByte()
                File(it, path).writeBytes(bytes)
            }
        }
        shows("A file of the bundle is missing or wrong", "onnx/vae_decoder/model.onnx_data has the wrong size") {
            val cut = File(it, "onnx/vae_decoder/model.onnx_data")
            val bytes = cut.readBytes()
            cut.delete()
            cut.writeBytes(bytes.copyOf(bytes.size / 2))
        }
        shows("A file of the bundle is missing or wrong", "manifest.json has the wrong contents") {
            File(it, "manifest.json").appendText(" ")
        }
        val text = screen.words(R.id.problem_text)
        assertEquals("Copy the bundle to the phone again.", text)
    }

    @Test
    fun `what the app cannot draw with is refused by its reason`() {
        fun forge(folder: File, vararg keys: String, value: Any?) {
            val primitive = when (value) {
                is Int -> JsonPrimitive(value)
                is Boolean -> JsonPrimitive(value)
                else -> JsonPrimitive("$value")
            }
            val (file, rest) = keys.first() to keys.drop(1).toTypedArray()
            Forgery.change(folder.toPath(), file, *rest) { primitive }
        }

        fun asFormat(folder: File, format: String) = Forgery.change(folder.toPath(), "manifest.json", "formats") {
            JsonObject(mapOf(format to (it as JsonObject).getValue("onnx")))
        }
        shows("The bundle has another version") { forge(it, "manifest.json", "version", value = 3) }
        assertTrue(screen.words(R.id.problem_text).endsWith("Install a newer app."))
        shows("The bundle has another version") { forge(it, "manifest.json", "version", value = 1) }
        assertTrue(screen.words(R.id.problem_text).endsWith("Export the model again."))
        shows("The bundle failed its proof") { forge(it, "manifest.json", "proof", "passed", value = false) }
        shows("The bundle is too new for this app") {
            forge(it, "pipeline/onnx.json", "program", "guidance", value = "telepathy")
        }
        assertTrue(screen.words(R.id.problem_text), screen.words(R.id.problem_text).contains("telepathy"))
        shows("This bundle is not for this phone") { asFormat(it, "coreml") }
        assertTrue(screen.words(R.id.problem_detail), screen.words(R.id.problem_detail).contains("it holds coreml"))
        shows("This bundle is not for this phone") { asFormat(it, "tflite") }
        assertTrue(screen.words(R.id.problem_detail).contains("lacks TensorFlow Lite's library"))
        shows("The app is too old for this bundle") {
            forge(it, "pipeline/onnx.json", "graphs", "unet", "engine", "least_version", value = "9.1")
        }
        assertTrue(screen.words(R.id.problem_text).startsWith("unet needs onnxruntime 9.1 or newer"))
        shows("The bundle contradicts itself") { folder ->
            val path = folder.toPath().resolve("manifest.json")
            val forged = Forgery.replace(Forgery.read(path), listOf("runtime_id")) { JsonPrimitive("0".repeat(64)) }
            Forgery.write(path, forged)
            Forgery.sign(folder.toPath())
        }
        shows("This is not a bundle") { folder ->
            folder.deleteRecursively()
            folder.mkdirs()
        }
    }

    @Test
    fun `files that other programs leave are passed over`() {
        val folder = OnPhone.push(name = "visited")
        File(folder, ".DS_Store").writeText("x")
        File(folder, "onnx/Thumbs.db").writeText("x")
        studio.open(Place("visited", folder, Place.Origin.PUSHED))
        OnPhone.awaitIdle()
        assertNull(studio.problem)
        assertEquals("visited", studio.opened!!.place.name)
    }

    /** Pushes a bundle that is changed, opens it, and compares what the card says. */
    private fun shows(title: String, files: String = "", change: (File) -> Unit) {
        val folder = OnPhone.push(name = "broken")
        change(folder)
        studio.open(Place("broken", folder, Place.Origin.PUSHED))
        OnPhone.awaitIdle()
        assertEquals(title, screen.words(R.id.problem_title))
        assertEquals(files, screen.words(R.id.problem_files))
        assertTrue(screen.words(R.id.problem_text).isNotEmpty())
        assertEquals("the good bundle stays open", "good", studio.opened!!.place.name)
        folder.deleteRecursively()
    }
}
