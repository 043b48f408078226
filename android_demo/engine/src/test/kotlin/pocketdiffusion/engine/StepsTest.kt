package pocketdiffusion.engine

import kotlin.math.abs
import kotlin.math.sqrt
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class StepsTest {
    private fun row(a: Float, b: FloatArray, p: Float = 0f, q: Float = 1f, c: Float = 0f) =
        StepRow(500f, 1f, p, q, a, b, c, 1f, 1f)

    @Test
    fun aRowIsAdvancedInTheOrderThatIsWritten() {
        val denoising = Denoising(floatArrayOf(4f))
        denoising.advance(row(0.5f, floatArrayOf(2f, 0f, 0f, 0f, 0f)), floatArrayOf(3f), null)
        assertContentEquals(floatArrayOf(8f), denoising.latents)
        denoising.advance(row(0f, floatArrayOf(0f, 1f, 0f, 0f, 0f)), floatArrayOf(9f), null)
        assertContentEquals(floatArrayOf(3f), denoising.latents) // the output before
    }

    @Test
    fun whatIsNotThereIsNotTakenForZero() {
        val looksBack = row(1f, floatArrayOf(1f, 1f, 0f, 0f, 0f))
        assertFailsWith<IllegalStateException> {
            Denoising(floatArrayOf(1f)).advance(looksBack, floatArrayOf(1f), null)
        }
        val noisy = row(1f, FloatArray(5), c = 1f)
        assertFailsWith<IllegalStateException> { Denoising(floatArrayOf(1f)).advance(noisy, floatArrayOf(1f), null) }
    }

    @Test
    fun aFactorOfZeroLeavesInfinityOut() {
        val broken = floatArrayOf(Float.POSITIVE_INFINITY)
        val denoising = Denoising(broken)
        denoising.advance(row(0f, floatArrayOf(1f, 0f, 0f, 0f, 0f)), floatArrayOf(1f), null)
        assertContentEquals(floatArrayOf(1f), denoising.latents)
    }

    @Test
    fun restartsTakeTheirOwnColumns() {
        val names = listOf("input_scale", "p", "q", "a", "b1", "b2", "b3", "b4", "c", "signal_scale", "noise_scale")
        val constants = names.associateWith { 0f }
        val file = Tensor.of(intArrayOf(6), floatArrayOf(10f, 20f, 21f, 1f, 2f, 3f)) // timesteps, then b0
        val bytes = ByteArray(24).also { file.bytes().get(it) }
        val sampler = StepIndex.Sampler(
            StepColumns(mapOf("timestep" to 0L, "b0" to 12L), constants),
            rows = intArrayOf(1, 2, 0),
            initNoiseSigma = floatArrayOf(1f, 2f, 3f),
            restarts = listOf(StepColumns(emptyMap(), mapOf("b0" to 7f))),
        )
        val tables = StepTables(StepIndex("steps/tables.bin", 3, "one", mapOf("one" to sampler)), bytes)
        val run = tables.read("one", 2)
        assertEquals(listOf(20f, 21f), run.rows.map { it.timestep })
        assertEquals(listOf(7f, 3f), run.rows.map { it.b[0] })
        assertEquals(2f, run.initNoiseSigma)
        assertEquals(listOf(7f), tables.read("one", 2, start = 1).rows.map { it.b[0] })
        for (steps in listOf(-1, 0, 3, 4)) {
            assertTrue("$steps steps" in assertFailsWith<Refusal> { tables.read("one", steps) }.what)
        }
        assertTrue("two" in assertFailsWith<Refusal> { tables.read("two", 1) }.what)
    }

    @Test
    fun theGoldenRunsAreThoseOfDiffusers() {
        val golden = Bundles.golden("steps.json")
        val tolerance = golden["tolerance"].number()
        for (case in golden["cases"].items()) {
            val table = case["table"]

            fun near(made: FloatArray, told: JsonNode) {
                val wanted = numbers(told)
                val mean = wanted.average()
                val deviation = sqrt(wanted.sumOf { (it - mean) * (it - mean) } / wanted.size)
                for (i in made.indices) assertTrue(abs(made[i] - wanted[i]) <= tolerance * deviation, told.where)
            }

            val rows = case["rows"].items()
            val random = TorchRandom(case["seed"].text())
            val noise = random.normal(Tensor.countOf(case["shape"].ints()))
            near(noise, case["noise"])
            val run = StepRun(rows.indices.map { rowOf(table, it) }, table["init_noise_sigma"].number().toFloat())
            val image = if (table["start"].int() == 0) null else numbers(case["image"])
            val denoising = Denoising(Latents.first(run, noise, image))
            near(denoising.latents, case["first"])
            for ((row, told) in run.rows.zip(rows)) {
                assertEquals(told["timestep"].number().toFloat(), row.timestep)
                near(denoising.scaled(row), told["scaled"])
                val fresh = if (row.drawsNoise) random.normal(noise.size).also { near(it, told["fresh"]) } else null
                denoising.advance(row, numbers(told["output"]), fresh)
                near(denoising.latents, told["latents"])
            }
        }
    }

    private fun numbers(list: JsonNode) = list.items().map { it.number().toFloat() }.toFloatArray()

    private fun rowOf(table: JsonNode, i: Int): StepRow {
        fun column(name: String) = table[name].items()[i].number().toFloat()
        val b = numbers(table["b"].items()[i])
        return StepRow(
            column("timestep"), column("input_scale"), column("p"), column("q"), column("a"), b, column("c"),
            table["signal_scale"].number().toFloat(), table["noise_scale"].number().toFloat(),
        )
    }
}
