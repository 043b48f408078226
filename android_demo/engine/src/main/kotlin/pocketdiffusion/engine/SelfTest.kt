package pocketdiffusion.engine

import java.io.File
import java.io.IOException

/** Hears how a self-test goes on; called on the thread that tests. */
fun interface SelfTestListener {
    /** `done` of `total` parts; `subject` is what comes next, such as "unet on cpu". */
    fun onPart(subject: String, done: Int, total: Int)
}

/**
 * Whether this device draws as the original did (docs/BUNDLE.md, sections 11 and 12): the conformance vectors, one recorded
 * call of each graph on each unit, and one picture.
 */
class SelfTest(private val generator: Generator, private val engine: GraphEngine, private val device: Device) {
    private val bundle = generator.bundle
    private val pipeline = generator.pipeline

    /**
     * Tests all. What fails is a verdict or an error of the report and no exception; Cancelled is one, and NotWhole where
     * files are not those of the manifest.
     */
    fun run(
        units: List<String> = engine.units,
        calls: Int = 3,
        listener: SelfTestListener = SelfTestListener { _, _, _ -> },
        cancellation: Cancellation = Cancellation(),
    ): DeviceReport {
        val golden = bundle.manifest.golden.filterKeys { it in pipeline.graphs }
        val vectors = Vectors(bundle, generator)
        val total = vectors.all.size + golden.size * units.size + 1
        var done = 0
        fun <T> part(subject: String, work: () -> T): T {
            cancellation.check()
            listener.onPart(subject, done++, total)
            return work()
        }
        val judged = vectors.all.map { part(it.name) { vectors.judge(it) } }
        val graphs = golden.flatMap { (name, case) ->
            units.map { unit ->
                part("$name on $unit") { runGraph(pipeline.graphs.getValue(name), case, unit, calls, cancellation) }
            }
        }
        val picture = part("picture") { bundle.manifest.picture?.let { draw(it, cancellation) } }
        return DeviceReport(
            bundle = bundle,
            device = device,
            engines = listOf(ProgramVersion(engine.name, engine.version)),
            format = pipeline.format,
            graphs = graphs,
            vectors = judged,
            picture = picture,
            pictureArithmetic = pipeline.graphs.values.map {
                engine.arithmeticOf(it, it.computeUnit)
            }.minByOrNull(ARITHMETIC::indexOf)!!,
        )
    }

    /** One recorded call of a graph on a unit, and some more for their time. */
    private fun runGraph(
        graph: PipelineGraph,
        case: Manifest.GoldenCase,
        unit: String,
        calls: Int,
        cancellation: Cancellation,
    ): UnitResult {
        val arithmetic = engine.arithmeticOf(graph, unit)
        val inputs = case.inputs.mapValues { bundle.array(it.value) }
        val measuresPeak = OwnMemory.forgetPeak()
        var load: Double? = null
        var first: Double? = null
        val others = ArrayList<Double>()
        try {
            val began = System.nanoTime()
            val outputs = engine.open(bundle, graph, unit).use { runner ->
                load = secondsSince(began)
                val called = System.nanoTime()
                val outputs = runner.run(inputs, cancellation)
                first = secondsSince(called)
                repeat(calls - 1) {
                    val again = System.nanoTime()
                    runner.run(inputs, cancellation)
                    others += secondsSince(again)
                }
                outputs
            }
            val verdicts = case.outputs.mapValues { (name, ref) ->
                val expected = bundle.array(ref).convert(DType.FLOAT32).floats()
                val made = outputs.getValue(name).convert(DType.FLOAT32).floats()
                Verdict("${graph.name}.$name on $unit", Compare.psnr(expected, made), graph.floor)
            }
            val peak = if (measuresPeak) OwnMemory.peakBytes() else null
            return UnitResult(graph.name, unit, arithmetic, load, first, median(others), peak, verdicts, null)
        } catch (error: NotFinite) {
            val verdicts = case.outputs.keys.associateWith { name ->
                Verdict(
                    "${graph.name}.$name on $unit",
                    Double.NEGATIVE_INFINITY,
                    graph.floor,
                    finite =
                    name != error.output,
                )
            }
            return UnitResult(graph.name, unit, arithmetic, load, first, null, null, verdicts, null)
        } catch (error: EngineError) {
            if (error is Cancelled || error is NotWhole) throw error
            return UnitResult(graph.name, unit, arithmetic, null, null, null, null, emptyMap(), error.message)
        }
    }

    /** The original's picture, drawn again. */
    private fun draw(told: Manifest.OriginalPicture, cancellation: Cancellation): Verdict {
        val floor = pipeline.graphs.values.minOf { it.pictureFloor }
        val request = Request(
            prompt = told.prompt,
            negativePrompt = told.negativePrompt,
            seed = told.seed,
            steps = told.steps,
            guidance = told.guidance,
            sampler = told.sampler,
        )
        val original = Png.read(bundle.read(told.image), told.image)
        return try {
            Verdict(
                "picture",
                Compare.psnr(original, generator.draw(request, cancellation = cancellation).picture),
                floor,
            )
        } catch (error: NotFinite) {
            Verdict("picture", Double.NEGATIVE_INFINITY, floor, finite = false, note = error.message.orEmpty())
        } catch (error: EngineError) {
            if (error is Cancelled || error is NotWhole) throw error
            Verdict("picture", Double.NEGATIVE_INFINITY, floor, note = error.message.orEmpty())
        }
    }

    private companion object {
        val ARITHMETIC = listOf("int8", "int16", "float16", "float32") // the least precise first

        fun secondsSince(began: Long) = (System.nanoTime() - began) / 1e9

        fun median(values: List<Double>): Double? = values.sorted().getOrNull(values.size / 2)
    }
}

/** The memory of this process, as Linux tells it. */
internal object OwnMemory {
    /** Begins a new peak; false where the system does not let it. */
    fun forgetPeak(): Boolean = try {
        File("/proc/self/clear_refs").writeText("5")
        true
    } catch (_: IOException) {
        false
    }

    fun peakBytes(): Long? = try {
        val line = File("/proc/self/status").readLines().firstOrNull { it.startsWith("VmHWM:") }
        line?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)
    } catch (_: IOException) {
        null
    }
}
