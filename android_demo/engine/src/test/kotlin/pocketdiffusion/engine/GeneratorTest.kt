package pocketdiffusion.engine

import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Drawing with the built-in model, and what a drawing does when something goes wrong in its midst. */
class GeneratorTest {
    private val bundle = Bundle.open(Bundles.emoji)
    private val apple = Request("red apple", seed = "1", steps = 10, guidance = 7.5)

    @Test
    fun howLongGraphsStayOpenChangesNoPicture() {
        val pictures = Residency.values().map { residency ->
            val engine = ChangedEngine(OrtEngine(threads = 1))
            Generator(bundle, engine, residency).use { generator ->
                val picture = generator.draw(apple).picture
                assertEquals(if (residency == Residency.KEEP) 3 else 1, engine.mostOpen)
                assertEquals(if (residency == Residency.KEEP) 3 else 0, engine.open.size)
                picture
            }
        }
        for (picture in pictures) assertContentEquals(pictures[0].rgb, picture.rgb)
    }

    @Test
    fun theListenerHearsOfEachStep() {
        val stages = ArrayList<String>()
        val steps = ArrayList<StepDone>()
        val listener = object : DrawListener {
            override fun onStage(name: String) {
                stages += name
            }

            override fun onStep(step: StepDone) {
                steps += step
            }
        }
        val drawn = Generator(bundle, OrtEngine(threads = 1)).use { it.draw(apple, listener) }
        assertEquals(listOf(Program.ENCODE_PROMPT, Program.DENOISE, Program.DECODE), stages)
        assertEquals((1..10).toList(), steps.map { it.row })
        assertContentEquals(drawn.latents, steps.last().latents)
        val preview = steps.last().preview()!!
        val small = ImageToImage.resize(drawn.picture, preview.width, preview.height)
        assertTrue(Compare.psnr(small, preview) > 12, "the preview has ${Compare.psnr(small, preview)} dB")
        assertEquals("red apple", drawn.facts["prompt"])
        assertEquals("7.5", drawn.facts["guidance"])
    }

    @Test
    fun aDrawingIsCancelledInAStepAndTheNextOneIsWhole() {
        val cancellation = Cancellation()
        val engine = ChangedEngine(OrtEngine(threads = 1))
        Generator(bundle, engine, Residency.KEEP).use { generator ->
            val whole = generator.draw(apple).picture
            val listener = object : DrawListener {
                override fun onStep(step: StepDone) {
                    if (step.row == 3) thread { Thread.sleep(4).also { cancellation.cancel() } }
                }
            }
            assertFailsWith<Cancelled> {
                generator.draw(Request("red apple", seed = "1", steps = 50), listener, cancellation)
            }
            assertFailsWith<Cancelled> { generator.draw(apple, cancellation = cancellation) }
            assertContentEquals(whole.rgb, generator.draw(apple).picture.rgb)
        }
        assertTrue(engine.open.isEmpty())
    }

    @Test
    fun whatIsNotFiniteInTheMidstIsToldAndClosesGraphs() {
        var calls = 0
        val broken = Tensor.of(intArrayOf(1), floatArrayOf(Float.NaN))
        val engine = ChangedEngine(OrtEngine(threads = 1), given = { graph, values ->
            if (graph == "unet" && ++calls == 4) values + ("timestep" to broken) else values
        })
        Generator(bundle, engine).use { generator ->
            val error = assertFailsWith<NotFinite> { generator.draw(apple) }
            assertEquals(listOf("unet", "out_sample"), listOf(error.graph, error.output))
            assertEquals(4, calls)
            assertTrue(engine.open.isEmpty())
            generator.draw(apple)
        }
    }

    @Test
    fun memoryThatIsRefusedInTheMidstIsToldAndClosesGraphs() {
        var calls = 0
        val engine = ChangedEngine(OrtEngine(threads = 1), before = {
            if (it == "unet" && ++calls == 4) throw OutOfMemoryError("no room")
        })
        Generator(bundle, engine).use { generator ->
            assertTrue("one graph open at a time" in assertFailsWith<OutOfMemory> { generator.draw(apple) }.message!!)
            assertTrue(engine.open.isEmpty())
            generator.draw(apple)
        }
    }

    @Test
    fun requestsThatCannotBeDrawnAreRefused() {
        Generator(bundle, OrtEngine(threads = 1)).use { generator ->
            val photo = Picture(8, 8, ByteArray(8 * 8 * 3))
            assertFailsWith<BadRequest> { generator.draw(Request("x", seed = "one")) }
            assertFailsWith<BadRequest> {
                generator.draw(Request("x", seed = "1", steps = 4, picture = photo, strength = 0.1))
            }
            assertTrue(
                "51 steps" in assertFailsWith<Refusal> { generator.draw(Request("x", seed = "1", steps = 51)) }.what,
            )
            assertTrue(
                "heun" in assertFailsWith<Refusal> { generator.draw(Request("x", seed = "1", sampler = "heun")) }.what,
            )
        }
    }

    @Test
    fun whatDoesNotFitIsTold() {
        Generator(bundle, OrtEngine(threads = 1)).use { generator ->
            val request = Request("cat ".repeat(80) + "END", negativePrompt = "dog ".repeat(76), seed = "1", steps = 1)
            val drawn = generator.draw(request)
            assertTrue(drawn.cut.endsWith("END"))
            assertEquals("dog ", drawn.negativeCut)
        }
    }

    @Test
    fun aUnitThatCannotGivesWayToTheCpuAndSaysSo() {
        val openBatch = Bundle.open(Bundles.kit.resolve("pndm")) // which the NPU refuses, as its manifest says
        val engine = ChangedEngine(OrtEngine(threads = 1), units = listOf("cpu", "npu"))
        val units = HashMap<String, String>()
        val listener = object : DrawListener {
            override fun onStep(step: StepDone) {
                units += engine.open
            }
        }
        val wished = { graph: PipelineGraph -> if (graph.name == "vae_decoder") "gpu" else "npu" }
        Generator(openBatch, engine, Residency.KEEP, wished).use {
            it.draw(apple, listener)
            units += engine.open
            assertEquals(mapOf("text_encoder" to "npu", "unet" to "cpu", "vae_decoder" to "cpu"), units)
            assertEquals(setOf("unet", "vae_decoder"), it.fallbacks.keys)
            assertTrue(it.fallbacks["unet"] is UnitKnownBad)
            assertTrue(it.fallbacks["vae_decoder"] is UnitNotHere)
            assertEquals("cpu", it.unitOf(it.pipeline.graphs.getValue("unet")))
        }
    }
}
