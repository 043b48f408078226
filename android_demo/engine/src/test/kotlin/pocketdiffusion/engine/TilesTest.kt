package pocketdiffusion.engine

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Decoding in tiles: where they lie, and how they are blended, as torch computed it. */
class TilesTest {
    @TempDir
    lateinit var scratch: Path

    private val apple = Request("red apple", seed = "1", steps = 2)

    @Test
    fun theGoldenTilesAreBlendedToTheBit() {
        val golden = Bundles.golden("tiles.json")["cases"].items()
        assertTrue(golden.size >= 4)
        for (case in golden) {
            val (scale, size, overlap) = listOf("scale", "tile_size", "tile_overlap").map { case[it].int() }
            val axes = case["latents"].ints().map { Tiles.TileAxis(it, size / scale, overlap / scale) }
            assertEquals(case["rows"].ints().toList(), axes[0].starts, case.where)
            assertEquals(case["columns"].ints().toList(), axes[1].starts, case.where)
            val tiles = ArrayDeque(case["tiles"].items().map { floats(it) })
            val (height, width) = case["latents"].ints().toList()
            val latents = FloatArray(2 * height * width) { it.toFloat() } // each tells its place
            val given = ArrayList<List<Float>>()
            val picture = Tiles(axes[0], axes[1], scale).decode(latents, channels = 2) {
                given += it.toList()
                tiles.removeFirst()
            }
            assertContentEquals(floats(case["picture"]), picture, case.where)
            assertTrue(tiles.isEmpty())
            val cut = axes[0].starts.flatMap { row ->
                axes[1].starts.map { column ->
                    (0..1).flatMap { c ->
                        (row until row + axes[0].length).flatMap { y ->
                            (column until column + axes[1].length).map { x -> ((c * height + y) * width + x).toFloat() }
                        }
                    }
                }
            }
            assertEquals(cut, given, case.where)
        }
    }

    /** With a decoder that looks at one latent for each pixel, so that tiles are as the whole. */
    @Test
    fun eachTileIsDecodedOnceAndLiesInItsPlace() {
        val folder = Forgery.copy(Bundles.emoji, scratch)
        Forgery.change(folder, PIPELINE) { tiled(it as JsonObject, tile = 24, overlap = 8) }
        val pictures = listOf(Bundles.emoji, folder).map { bundle ->
            val engine = Enlarging(OrtEngine(threads = 1))
            Generator(Bundle.open(bundle), engine).use { generator ->
                val picture = generator.draw(apple).picture
                assertEquals(if (bundle == folder) 16 else 1, engine.calls)
                assertEquals(1, engine.opened)
                picture
            }
        }
        assertContentEquals(pictures[0].rgb, pictures[1].rgb)
    }

    @Test
    fun tilesThatCannotBeAreRefused() {
        val folder = Forgery.copy(Bundles.emoji, scratch)
        fun refused(tile: Int?, overlap: Int?): EngineError {
            Forgery.change(folder, PIPELINE, "vae") { vae ->
                fun told(number: Int?) = if (number == null) JsonNull else JsonPrimitive(number)
                JsonObject(vae as JsonObject + mapOf("tile_size" to told(tile), "tile_overlap" to told(overlap)))
            }
            return assertFailsWith<EngineError> { Bundle.open(folder).pipeline(listOf("onnx")) }
        }
        for ((tile, overlap) in listOf(32 to null, null to 8, 32 to 32, 30 to 8, 32 to 6, 64 to 8, 0 to 0, 32 to -4)) {
            assertTrue(refused(tile, overlap) is Contradiction, "$tile, $overlap")
        }
        val error = refused(32, 8)
        assertTrue(error is Refusal && "vae.tile_size" in error.what, "its decoder makes the whole picture: $error")
    }

    /** Writes tiles into a pipeline file, and their shapes into its decoder. */
    private fun tiled(pipeline: JsonObject, tile: Int, overlap: Int): JsonObject {
        fun shaped(tensors: JsonElement, channels: Int, side: Int): JsonArray {
            val shape = JsonArray(listOf(1, channels, side, side).map { JsonPrimitive(it) })
            return JsonArray((tensors as JsonArray).map { JsonObject(it as JsonObject + ("shape" to shape)) })
        }
        val graphs = pipeline.getValue("graphs") as JsonObject
        val decoder = graphs.getValue("vae_decoder") as JsonObject
        val spec = decoder.getValue("spec") as JsonObject
        val other = JsonObject(
            spec + mapOf(
                "inputs" to shaped(spec.getValue("inputs"), channels = 4, side = tile / Enlarging.SCALE),
                "outputs" to shaped(spec.getValue("outputs"), channels = 3, side = tile),
            ),
        )
        val told = mapOf("tile_size" to JsonPrimitive(tile), "tile_overlap" to JsonPrimitive(overlap))
        val vae = JsonObject(pipeline.getValue("vae") as JsonObject + told)
        val changed = JsonObject(graphs + ("vae_decoder" to JsonObject(decoder + ("spec" to other))))
        return JsonObject(pipeline + mapOf("vae" to vae, "graphs" to changed))
    }

    /** An engine that has a decoder of its own: it enlarges three channels of the latents. */
    private class Enlarging(private val engine: GraphEngine) : GraphEngine by engine {
        var calls = 0
        var opened = 0

        override fun open(bundle: Bundle, graph: PipelineGraph, unit: String): GraphRunner {
            if (graph.name != "vae_decoder") return engine.open(bundle, graph, unit)
            opened++
            return object : GraphRunner {
                override fun run(inputs: Values, cancellation: Cancellation): Values {
                    calls++
                    val latents = inputs.values.single()
                    val (height, width) = latents.shape[2] to latents.shape[3]
                    val shape = intArrayOf(1, 3, SCALE * height, SCALE * width)
                    val values = latents.floats()
                    val made = FloatArray(Tensor.countOf(shape)) { i ->
                        val (line, x) = i / shape[3] to i % shape[3] / SCALE
                        val (c, y) = line / shape[2] to line % shape[2] / SCALE
                        values[(c * height + y) * width + x]
                    }
                    return mapOf(graph.spec.outputs.single().name to Tensor.of(shape, made))
                }

                override fun close() = Unit
            }
        }

        companion object {
            const val SCALE = 4
        }
    }

    private fun floats(node: JsonNode) = node.items().map { it.number().toFloat() }.toFloatArray()

    private companion object {
        const val PIPELINE = "pipeline/onnx.json"
    }
}
