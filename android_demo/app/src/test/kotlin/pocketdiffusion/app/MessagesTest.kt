package pocketdiffusion.app

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import pocketdiffusion.engine.BadRequest
import pocketdiffusion.engine.Cancelled
import pocketdiffusion.engine.CannotRunHere
import pocketdiffusion.engine.Contradiction
import pocketdiffusion.engine.DownloadBroken
import pocketdiffusion.engine.EngineError
import pocketdiffusion.engine.EngineFailure
import pocketdiffusion.engine.EngineTooOld
import pocketdiffusion.engine.Fault
import pocketdiffusion.engine.NotABundle
import pocketdiffusion.engine.NotEnoughMemory
import pocketdiffusion.engine.NotFinite
import pocketdiffusion.engine.NotWhole
import pocketdiffusion.engine.OutOfMemory
import pocketdiffusion.engine.ProofFailed
import pocketdiffusion.engine.ProofNotInstalled
import pocketdiffusion.engine.Refusal
import pocketdiffusion.engine.StorageFull
import pocketdiffusion.engine.UnitKnownBad
import pocketdiffusion.engine.UnitNotHere
import pocketdiffusion.engine.Unreadable
import pocketdiffusion.engine.WrongVersion
import java.io.File
import java.io.IOException
import javax.xml.parsers.DocumentBuilderFactory

@RunWith(RobolectricTestRunner::class)
class MessagesTest {
    private val errors = listOf(
        NotABundle("photos", "it has no manifest.json"),
        WrongVersion(3, 2),
        WrongVersion(1, 2),
        Refusal("the sampler unipc"),
        NotWhole(Fault.Kind.values().map { Fault("unet/model.onnx", it) }),
        Unreadable("unet/model.onnx", IOException("no such device")),
        DownloadBroken("unet/model.onnx", 1234L shl 20, "the connection was lost"),
        StorageFull(3L shl 20),
        Contradiction("steps/tables.bin", "it ends before the column p"),
        ProofFailed("unet.out_sample"),
        ProofNotInstalled("proof.json"),
        BadRequest("The guidance has to be a number."),
        EngineFailure("unet", "no kernel"),
        EngineTooOld("unet", "onnxruntime", "1.40", "1.29.0"),
        CannotRunHere("unet", "it is made for another chip"),
        UnitNotHere("unet", "gpu", "onnxruntime"),
        UnitKnownBad("unet", "npu", "it sums in float16"),
        NotFinite("unet", "out_sample"),
        Cancelled(),
        OutOfMemory(OutOfMemoryError()),
        NotEnoughMemory(900L shl 20, 300L shl 20, null),
        PhotoUnreadable(null),
        NotSaved(IOException("no space left")),
        NotWritten("red-apple-1.png", IOException("no space left")),
        IllegalStateException("a mistake of ours"),
    )

    @Test
    fun `every error is told in whole sentences, in both languages`() {
        for (language in listOf("en", "zh-rCN")) {
            RuntimeEnvironment.setQualifiers("+$language")
            val end = if (language == "en") "." else "。"
            for (error in errors) {
                val message = Messages(OnPhone.app.resources).of(error)
                val name = error.javaClass.simpleName
                val said = "$language $name: ${message.title} | ${message.text} | ${message.files}"
                assertTrue(said, message.title.isNotEmpty() && message.text.endsWith(end))
                assertFalse(said, (message.files + message.title + message.text).any { "%" in it || "null" in it })
                val isChinese =
                    message.text.any { it in '\u4e00'..'\u9fff' } && message.title.any { it in '\u4e00'..'\u9fff' }
                assertEquals(said, language != "en", isChinese)
            }
        }
        assertEquals(
            "the kinds of EngineError",
            kindsOfEngineError(),
            errors.filterIsInstance<EngineError>().map {
                it.javaClass.simpleName
            }.toSet(),
        )
    }

    @Test
    fun `both languages have the same texts with the same values`() {
        val (english, chinese) = listOf("values", "values-zh").map(::textsOf)
        assertEquals(english.keys, chinese.keys)
        val values = Regex("%\\d\\$(\\.\\d)?[a-z]|%%")
        for ((name, text) in english) {
            assertEquals(name, found(values, text), found(values, chinese.getValue(name)))
        }
    }

    @Test
    fun `no text stands in the layouts or the code`() {
        val literal = Regex("android:(text|hint|contentDescription|title|label)=\"(?!@)")
        for (file in File("src/main").walk().filter { it.extension == "xml" }) {
            assertFalse("${file.path} has a text that is not a resource", literal.containsMatchIn(file.readText()))
        }
        val inCode =
            Regex("\\.(text|hint|contentDescription) = \"[A-Za-z]|set(Text|Title|Message)\\(\"|makeText\\([a-z]+, \"")
        for (file in File("src/main/kotlin").walk().filter { it.extension == "kt" }) {
            assertFalse("${file.path} has a text that is not a resource", inCode.containsMatchIn(file.readText()))
        }
    }

    private fun found(regex: Regex, text: String) = regex.findAll(text).map { it.value }.sorted().toList()

    private fun kindsOfEngineError(): Set<String> {
        val source = File("../engine/src/main/kotlin/pocketdiffusion/engine/Errors.kt").readText()
        return Regex("^class (\\w+)", RegexOption.MULTILINE).findAll(source).map { it.groupValues[1] }.toSet()
    }

    private fun textsOf(folder: String): Map<String, String> {
        val file = File("src/main/res/$folder/strings.xml")
        val document = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(file)
        val nodes = document.getElementsByTagName("string")
        return (0 until nodes.length).map { nodes.item(it) }
            .associate { it.attributes.getNamedItem("name").nodeValue to it.textContent }
    }
}
