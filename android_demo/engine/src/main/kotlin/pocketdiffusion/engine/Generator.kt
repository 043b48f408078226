package pocketdiffusion.engine

import java.io.Closeable

/**
 * Draws pictures with a bundle. What this engine cannot do is refused when a generator is made, before anything is
 * drawn. One thread at a time draws; any thread may cancel.
 */
class Generator(
    val bundle: Bundle,
    engine: GraphEngine,
    residency: Residency = Residency.STAGE,
    /** The unit that a graph is to run on: the one that it was made for, if nothing else is said. */
    wishedUnit: (PipelineGraph) -> String = { it.computeUnit },
) : Closeable {
    val pipeline: Pipeline = bundle.pipeline(listOf(engine.format))
    val tables = StepTables(pipeline.steps, bundle.read(pipeline.steps.file))
    val tokenizers: List<Tokenizer> = pipeline.tokenizers.map { Tokenizer.open(bundle, it) }
    internal val constants = pipeline.program.constants.associate { it.path to bundle.array(it) }
    internal val pool = GraphPool(bundle, engine, residency, wishedUnit)

    init {
        stagesFor(hasPicture = false).flatMap(pipeline::graphsOf).distinct().forEach(pool::check)
    }

    /** Graphs that run on the CPU and not where they were wished to, each with the reason. */
    val fallbacks: Map<String, EngineError> get() = pool.fallbacks

    /** The unit that a graph runs on. */
    fun unitOf(graph: PipelineGraph): String = pool.unitOf(graph)

    /** Draws one picture. Throws EngineError; Cancelled where `cancellation` was asked to. */
    fun draw(
        request: Request,
        listener: DrawListener = DrawListener.None,
        cancellation: Cancellation = Cancellation(),
    ): Drawn = try {
        Drawing(this, request, listener, cancellation).draw()
    } catch (error: OutOfMemoryError) {
        throw OutOfMemory(error)
    } finally {
        pool.endStage()
    }

    override fun close() = pool.close()

    /**
     * The variants of the stages that a drawing runs. Throws Refusal where the program asks for what is not given
     * here.
     */
    internal fun stagesFor(hasPicture: Boolean): List<Stage> {
        val program = pipeline.program
        val hosts = program.hosts(tokenizers.size, hasPicture)
        val names = listOf(Program.ENCODE_PROMPT, Program.ENCODE_IMAGE, Program.DENOISE, Program.DECODE)
        val stages = names.filter { hasPicture || it != Program.ENCODE_IMAGE }.mapNotNull { program.variant(it, hosts) }
        program.checkGiven(stages, hosts)
        return stages
    }
}
