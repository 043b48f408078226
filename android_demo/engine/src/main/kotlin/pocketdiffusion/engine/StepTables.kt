package pocketdiffusion.engine

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Where the columns of a table are: in the file, or a number that stands for a whole column. */
class StepColumns(private val places: Map<String, Long>, private val constants: Map<String, Float>) {
    /** The value of a column in the row at `place`, or null where the column is not here. */
    fun find(name: String, place: Int, file: ByteBuffer): Float? = constants[name] ?: places[name]?.let { begin ->
        val at = begin + 4L * place
        if (at < 0 || at + 4 > file.limit()) throw IndexOutOfBoundsException("$name ends at ${file.limit()}")
        file.getFloat(at.toInt())
    }

    companion object {
        fun read(node: JsonNode) = StepColumns(
            node["columns"].entries().mapValues { (_, byte) -> byte.long() },
            node["constants"].entries().mapValues { (_, value) -> value.number().toFloat() },
        )
    }
}

/** `steps` of the pipeline file: the index of the step tables (docs/BUNDLE.md, section 7). */
class StepIndex(val file: String, val mostSteps: Int, val defaultSampler: String, val samplers: Map<String, Sampler>) {
    class Sampler(
        val columns: StepColumns,
        /** Rows of the table of 1, 2, 3, ... steps. */
        val rows: IntArray,
        val initNoiseSigma: FloatArray,
        val restarts: List<StepColumns>,
    )

    companion object {
        fun read(node: JsonNode) = StepIndex(
            file = node["file"].text(),
            mostSteps = node["most_steps"].int(),
            defaultSampler = node["default_sampler"].text(),
            samplers = node["samplers"].entries().mapValues { (_, sampler) -> readSampler(sampler) },
        )

        private fun readSampler(node: JsonNode) = Sampler(
            columns = StepColumns.read(node),
            rows = node["rows"].ints(),
            initNoiseSigma = node["init_noise_sigma"].items().map { it.number().toFloat() }.toFloatArray(),
            restarts = node["restarts"].items().map { StepColumns.read(it) },
        )
    }
}

/** One call of the UNet: what it gets, and what is made of its output. */
class StepRow(
    val timestep: Float,
    val inputScale: Float,
    val p: Float,
    val q: Float,
    val a: Float,
    val b: FloatArray,
    val c: Float,
    val signalScale: Float,
    val noiseScale: Float,
) {
    val usesOutput get() = b.any { it != 0f }
    val drawsNoise get() = c != 0f
}

/** The rows of one run. */
class StepRun(val rows: List<StepRow>, val initNoiseSigma: Float)

/** The step tables of all samplers, read from the file that the index names. */
class StepTables(private val index: StepIndex, bytes: ByteArray) {
    private val file = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)

    /** The rows of `steps` steps from row `start` on. Throws Refusal for a sampler or a count without a table. */
    fun read(name: String, steps: Int, start: Int = 0): StepRun {
        val sampler = index.samplers[name] ?: throw Refusal("the sampler $name")
        val count = if (steps in 1..index.mostSteps) sampler.rows.getOrElse(steps - 1) { 0 } else 0
        if (count == 0) throw Refusal("$steps steps with the sampler $name")
        if (start >= count) throw Refusal("$steps steps with the sampler $name from row $start on")
        val first = (0 until steps - 1).sumOf { sampler.rows[it] }
        val rows = (start until count).map { row ->
            val holders = listOfNotNull(sampler.restarts.getOrNull(row - start), sampler.columns)
            readRow { column -> valueOf(column, holders, first + row) }
        }
        val sigma = sampler.initNoiseSigma.getOrNull(steps - 1)
        return StepRun(rows, sigma ?: throw Contradiction(index.file, "$name has no sigma for $steps steps"))
    }

    private fun readRow(value: (String) -> Float) = StepRow(
        timestep = value("timestep"),
        inputScale = value("input_scale"),
        p = value("p"),
        q = value("q"),
        a = value("a"),
        b = FloatArray(HISTORY) { value("b$it") },
        c = value("c"),
        signalScale = value("signal_scale"),
        noiseScale = value("noise_scale"),
    )

    private fun valueOf(name: String, holders: List<StepColumns>, place: Int): Float = try {
        holders.firstNotNullOfOrNull { it.find(name, place, file) }
    } catch (_: IndexOutOfBoundsException) {
        throw Contradiction(index.file, "it ends before the column $name")
    } ?: throw Contradiction(index.file, "the index has no column $name")

    companion object {
        const val HISTORY = 5
    }
}
