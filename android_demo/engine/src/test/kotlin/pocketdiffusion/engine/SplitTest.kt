package pocketdiffusion.engine

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** The built-in model with a UNet of several graphs: what it draws, and how many of them are open. */
class SplitTest {
    @TempDir
    lateinit var scratch: Path

    private val bundle = Bundle.open(Bundles.split)
    private val parts = bundle.pipeline(listOf("onnx")).graphs.keys.filter { it.startsWith("unet") }.sorted()

    private fun apple(oneBatch: Boolean = true) =
        Request("red apple", seed = "1", steps = STEPS, guidance = 7.5, oneBatch = oneBatch)

    private fun draw(folder: Path, request: Request): Picture =
        Generator(Bundle.open(folder), OrtEngine(threads = 1)).use { it.draw(request).picture }

    @Test
    fun itDrawsWhatTheWholeModelDraws() {
        for (oneBatch in listOf(true, false)) {
            val request = apple(oneBatch)
            val db = Compare.psnr(draw(Bundles.emoji, request), draw(Bundles.split, request))
            println("SPLIT ${parts.size} graphs, both halves in one call: $oneBatch, $db dB")
            assertTrue(db >= Redraw.FLOOR_DB, "$db dB")
        }
    }

    @Test
    fun oneGraphIsOpenAtEachTimeAndThePictureIsTheSame() {
        assertTrue(parts.size > 1)
        val open = mapOf(Residency.KEEP to parts.size + 2, Residency.STAGE to parts.size, Residency.CALL to 1)
        for (oneBatch in listOf(true, false)) {
            val pictures = Residency.values().map { residency ->
                val engine = ChangedEngine(OrtEngine(threads = 1))
                Generator(bundle, engine, residency).use { generator ->
                    val picture = generator.draw(apple(oneBatch)).picture
                    val steps = if (residency == Residency.CALL) STEPS else 1
                    val unets = List(steps) { parts }.flatten()
                    assertEquals(listOf("text_encoder") + unets + "vae_decoder", engine.opened, "$residency")
                    assertEquals(open[residency], engine.mostOpen, "$residency")
                    assertEquals(if (residency == Residency.KEEP) parts.size + 2 else 0, engine.open.size)
                    picture
                }
            }
            for (picture in pictures) assertContentEquals(pictures[0].rgb, picture.rgb)
        }
    }

    @Test
    fun whatFailsInAStepLeavesNoGraphOpen() {
        var calls = 0
        val engine = ChangedEngine(OrtEngine(threads = 1), before = {
            if (it == parts[1] && ++calls == 2) throw EngineFailure(it, "no room")
        })
        Generator(bundle, engine, Residency.CALL).use { generator ->
            assertEquals(parts[1], assertFailsWith<EngineFailure> { generator.draw(apple()) }.graph)
            assertTrue(engine.open.isEmpty())
            assertContentEquals(draw(Bundles.split, apple()).rgb, generator.draw(apple()).picture.rgb)
            assertEquals(1, engine.mostOpen)
        }
    }

    /** By the rule of docs/BUNDLE.md, with numbers of bytes that tell each of its terms. */
    @Test
    fun theMemoryIsThatOfTheGraphsThatAreOpen() {
        val folder = Forgery.copy(Bundles.split, scratch)
        val mega = 1_000_000L
        val counted = mapOf("text_encoder" to listOf(10, 1, 20), "vae_decoder" to listOf(5, 100, 6)) +
            parts.mapIndexed { n, name -> name to listOf(50 + n, 7, 200 - 40 * n) }
        val names = listOf("weights_bytes", "activations_bytes", "loading_bytes")
        Forgery.change(folder, "pipeline/onnx.json", "graphs") { graphs ->
            JsonObject(
                (graphs as JsonObject).mapValues { (name, graph) ->
                    val bytes = names.zip(counted[name] ?: listOf(0, 0, 0)).toMap().mapValues { it.value * mega }
                    val keeps = mapOf("keeps_activations" to JsonPrimitive(name == parts[1]))
                        .filterKeys { name != "text_encoder" } // kept where nothing is said
                    val memory = JsonObject(bytes.mapValues { JsonPrimitive(it.value) } + keeps)
                    JsonObject(graph as JsonObject + ("memory" to memory))
                },
            )
        }
        val estimate = MemoryEstimate(Generator(Bundle.open(folder), OrtEngine(threads = 1)), hasPicture = false)
        val peaks = mapOf(
            Residency.KEEP to 10 + 1 + 50 + 51 + 7 + 52 + 5 + 100, // all, in the last stage
            Residency.STAGE to 50 + 51 + 120, // the third graph of the step is loaded beside the others
            Residency.CALL to 200, // the first graph of the step is loaded
        )
        for ((residency, megabytes) in peaks) {
            val expected = (megabytes * mega * 1.1).toLong() + (64L shl 20)
            assertEquals(expected, estimate.peakBytes(residency), "$residency")
        }
        assertEquals(Residency.STAGE, estimate.choose(estimate.peakBytes(Residency.KEEP)!! - 1))
        assertEquals(Residency.CALL, estimate.choose(estimate.peakBytes(Residency.STAGE)!! - 1))
        assertFailsWith<NotEnoughMemory> { estimate.choose(estimate.peakBytes(Residency.CALL)!! - 1) }
    }

    private companion object {
        const val STEPS = 4
    }
}
