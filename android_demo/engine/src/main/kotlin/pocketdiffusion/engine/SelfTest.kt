package pocketdiffusion.engine

/** Hears how a self-test goes on; called on the thread that tests. */
fun interface SelfTestListener {
    /** `done` of `total` parts; `subject` is what comes next, such as "unet on cpu". */
    fun onPart(subject: String, done: Int, total: Int)
}

/**
 * Whether this device draws as the original did (docs/BUNDLE.md, sections 11 and 12): the conformance vectors, one
 * recorded call of each graph on each unit, and one picture.
 */
class SelfTest(private val generator: Generator, private val engine: GraphEngine, private val device: Device) {
    private val bundle = generator.bundle
    private val pipeline = generator.pipeline

    /** The picture that the last `run` drew; null where it drew none. */
    var drawn: Picture? = null
        private set

    /**
     * Tests all. What fails is a verdict or an error of the report and no exception; Cancelled is one, and NotWhole
     * where files are not those of the manifest.
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
        val picture = part(PICTURE) { bundle.manifest.picture?.let { draw(it, cancellation) } }
        return DeviceReport(
            bundle = bundle,
            device = device,
            engines = listOf(ProgramVersion(engine.name, engine.version)),
            format = pipeline.format,
            graphs = graphs,
            vectors = judged,
            picture = picture,
            pictureArithmetic = drawnIn(),
        )
    }

    /** The least precise arithmetic of the graphs that draw a picture. */
    private fun drawnIn(): String = pipeline.graphs.values
        .map { engine.arithmeticOf(it, generator.unitOf(it)) }
        .minByOrNull(LEAST_PRECISE_FIRST::indexOf)!!

    /** One recorded call of a graph on a unit, and some more for their time. */
    private fun runGraph(
        graph: PipelineGraph,
        case: Manifest.GoldenCase,
        unit: String,
        calls: Int,
        cancellation: Cancellation,
    ): UnitResult {
        val inputs = case.inputs.mapValues { bundle.array(it.value) }
        val measuresPeak = OwnMemory.forgetPeak()
        val seconds = ArrayList<Double>() // of loading, then of each call
        fun <T> timed(work: () -> T): T {
            val began = System.nanoTime()
            return work().also { seconds += (System.nanoTime() - began) / 1e9 }
        }

        fun resultOf(outputs: Map<String, Verdict>, error: String? = null) = UnitResult(
            graph = graph.name,
            unit = unit,
            arithmetic = engine.arithmeticOf(graph, unit),
            loadSeconds = seconds.getOrNull(0),
            firstCallSeconds = seconds.getOrNull(1),
            medianCallSeconds = medianOf(seconds.drop(2)),
            peakBytes = if (measuresPeak) OwnMemory.peakBytes() else null,
            outputs = outputs,
            error = error,
            draws = unit == generator.unitOf(graph),
        )

        fun verdict(name: String, db: Double, finite: Boolean = true) =
            Verdict("${graph.name}.$name on $unit", db, graph.floor, finite, noteOnFloor(graph))
        return try {
            val outputs = timed { engine.open(bundle, graph, unit) }.use { runner ->
                List(Math.max(calls, 1)) { timed { runner.run(inputs, cancellation) } }.first()
            }
            resultOf(case.outputs.mapValues { (name, ref) -> verdict(name, compare(ref, outputs.getValue(name))) })
        } catch (error: NotFinite) {
            resultOf(case.outputs.mapValues { (name, _) -> verdict(name, WORST, finite = name != error.output) })
        } catch (error: EngineError) {
            if (error is Cancelled || error is NotWhole) throw error
            resultOf(emptyMap(), error.message)
        } catch (error: OutOfMemoryError) {
            resultOf(emptyMap(), OutOfMemory(error).message)
        }
    }

    private fun noteOnFloor(graph: PipelineGraph): String = if (graph.floor != null) {
        ""
    } else {
        "this app knows no floor for ${graph.name}'s storage ${graph.storage} with arithmetic ${graph.arithmetic}"
    }

    private fun medianOf(seconds: List<Double>): Double? {
        if (seconds.isEmpty()) return null
        val sorted = seconds.sorted()
        return (sorted[(sorted.size - 1) / 2] + sorted[sorted.size / 2]) / 2
    }

    private fun compare(expected: ArrayRef, made: Tensor): Double {
        val (wanted, found) = listOf(bundle.array(expected), made).map { it.convert(DType.FLOAT32) }
        return if (wanted.shape.contentEquals(found.shape)) Compare.psnr(wanted.floats(), found.floats()) else WORST
    }

    /** The original's picture, drawn again. */
    private fun draw(told: Manifest.OriginalPicture, cancellation: Cancellation): Verdict {
        val floors = pipeline.graphs.values.map { it.pictureFloor }
        val floor = if (null in floors) null else floors.filterNotNull().minOrNull()
        val unknown = pipeline.graphs.values.firstOrNull { it.pictureFloor == null }?.let(::noteOnFloor).orEmpty()
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
            val made = generator.draw(request, cancellation = cancellation).picture
            drawn = made
            Verdict(PICTURE, Compare.psnr(original, made), floor, note = unknown)
        } catch (error: NotFinite) {
            Verdict(PICTURE, WORST, floor, finite = false, note = error.message.orEmpty())
        } catch (error: EngineError) {
            if (error is Cancelled || error is NotWhole) throw error
            Verdict(PICTURE, WORST, floor, note = error.message.orEmpty())
        }
    }

    private companion object {
        const val WORST = Double.NEGATIVE_INFINITY
        const val PICTURE = "picture"
        val LEAST_PRECISE_FIRST = listOf("int8", "int16", "float16", "float32")
    }
}
