package pocketdiffusion.engine

/** One picture on its way: the parts of the other files in their order (docs/BUNDLE.md, sections 3 to 10). */
internal class Drawing(
    private val generator: Generator,
    private val request: Request,
    private val listener: DrawListener,
    private val cancellation: Cancellation,
) {
    private val began = System.nanoTime()
    private val pipeline = generator.pipeline
    private val program = pipeline.program
    private val steps = request.steps ?: pipeline.defaults.steps
    private val guidance = request.guidance ?: pipeline.defaults.guidance
    private val strength = request.strength ?: pipeline.defaults.strength
    private val sampler = request.sampler ?: pipeline.steps.defaultSampler
    private val random = TorchRandom(request.seed)
    private val size = Tensor.countOf(pipeline.latents)
    private val stages = generator.stagesFor(request.picture != null).associateBy { it.name }
    private val run: StepRun
    private val shared = HashMap<String, Tensor>() // values that both halves of guidance share

    init {
        if (guidance.isNaN() || guidance.isInfinite()) throw BadRequest("The guidance has to be a number: 1 is none.")
        val canRedraw = Program.ENCODE_IMAGE in stages
        if (request.picture != null && !canRedraw) throw BadRequest("This bundle cannot start from a picture.")
        val start = if (request.picture == null) 0 else ImageToImage.startOf(steps, strength)
        run = generator.tables.read(sampler, steps, start)
        val isNoisy = run.rows.any { it.drawsNoise }
        if (isNoisy && Program.Draw.STEPS !in program.draws) throw Refusal("a program without the draw steps")
        if (program.guidance == Program.Guidance.EMBEDDED) shared["guidance"] = scalar(guidance.toFloat())
    }

    fun draw(): Drawn {
        val isGuided = program.guidance == Program.Guidance.CLASSIFIER_FREE && guidance > 1
        val prompts = if (isGuided) listOf(request.negativePrompt, request.prompt) else listOf(request.prompt)
        val tokens = prompts.map { text -> generator.tokenizers.map { it.input(text.orEmpty()) } }
        val halves = encode(prompts, tokens)
        val latents = denoise(halves, start(request.picture))
        val decoded = decode(latents)
        return Drawn(
            picture = decoded,
            latents = latents,
            cut = longestCut(tokens.last()),
            negativeCut = if (isGuided) longestCut(tokens.first()) else "",
            seconds = secondsSince(began),
            facts = facts(),
        )
    }

    /** The values of each half: those that encode_prompt makes, and those that it begins with. */
    private fun encode(prompts: List<String?>, tokens: List<List<Tokens>>): List<Values> {
        val own = tokens.map(::valuesOf)
        val stage = stages[Program.ENCODE_PROMPT] ?: return own
        val isZeros = prompts.map { it == null && program.absentIsZeros }
        val made = ArrayDeque(runStage(stage, own.filterIndexed { half, _ -> !isZeros[half] }))
        return own.mapIndexed { half, values ->
            values + if (isZeros[half]) runner().zeros(stage) else made.removeFirst()
        }
    }

    /** The host values of one half. */
    private fun valuesOf(tokens: List<Tokens>): Values {
        val (height, width) = pipeline.height.toFloat() to pipeline.width.toFloat()
        val values = HashMap<String, Tensor>()
        values["time_ids"] = Tensor.of(intArrayOf(1, 6), floatArrayOf(height, width, 0f, 0f, height, width))
        for ((n, one) in tokens.withIndex()) {
            val shape = intArrayOf(1, one.ids.size)
            values["tokens/${n + 1}"] = Tensor.of(shape, one.ids)
            values["attention_mask/${n + 1}"] = Tensor.of(shape, one.mask)
        }
        return values
    }

    /**
     * The latents before the first row. Noise is drawn in the program's order; for steps always last, see `denoise`.
     */
    private fun start(picture: Picture?): FloatArray {
        if (picture != null) {
            shared["picture"] = ImageToImage.resize(picture, pipeline.width, pipeline.height).toTensor()
            shared += runStage(stages.getValue(Program.ENCODE_IMAGE), listOf(emptyMap()))[0]
        }
        val posterior = shared["posterior"]?.floats()
        val noise = HashMap<Program.Draw, FloatArray>()
        for (draw in program.draws) {
            val isNeeded = draw == Program.Draw.START || draw == Program.Draw.POSTERIOR && posterior != null
            if (isNeeded) noise[draw] = random.normal(size)
        }

        fun noiseOf(draw: Program.Draw) = noise[draw] ?: throw Refusal("a program without the draw ${draw.text}")
        val z = when {
            picture == null -> null
            posterior == null -> result(shared, "image_latents")
            else -> Latents.sample(posterior, noiseOf(Program.Draw.POSTERIOR))
        }
        return Latents.first(run, noiseOf(Program.Draw.START), z?.let { Latents.fromEncoder(it, pipeline.vae) })
    }

    private fun denoise(halves: List<Values>, first: FloatArray): FloatArray {
        val stage = stages.getValue(Program.DENOISE)
        begin(stage)
        val stacked = request.oneBatch && halves.size > 1 && program.canStack(stage)
        val runner = runner()
        val denoising = Denoising(first)
        for ((r, row) in run.rows.withIndex()) {
            cancellation.check()
            val rowBegan = System.nanoTime()
            val isUnused = r == run.rows.size - 1 && !row.usesOutput // no part of the latents: the call is left out
            val output = if (isUnused) denoising.latents else predict(runner, stage, row, denoising, halves, stacked)
            denoising.advance(row, output, if (row.drawsNoise) random.normal(size) else null)
            listener.onStep(StepDone(r + 1, run.rows.size, secondsSince(rowBegan), denoising.latents, ::preview))
        }
        generator.pool.endStage()
        return denoising.latents
    }

    /** The UNet's output for a row, guided. */
    private fun predict(
        runner: ProgramRun,
        stage: Stage,
        row: StepRow,
        denoising: Denoising,
        halves: List<Values>,
        stacked: Boolean,
    ): FloatArray {
        val now = shared + mapOf(
            "latents" to Tensor.of(pipeline.latents, denoising.latents),
            "scaled_latents" to Tensor.of(pipeline.latents, denoising.scaled(row)),
            "timestep" to scalar(row.timestep),
        )
        val outputs = runner.run(stage, halves.map { now + it }, stacked).map { result(it, "model_output") }
        return if (outputs.size > 1) Latents.guide(outputs[0], outputs[1], guidance) else outputs[0]
    }

    private fun decode(latents: FloatArray): Picture {
        val stage = stages.getValue(Program.DECODE)
        begin(stage)
        val runner = runner()
        fun decodePart(part: FloatArray, shape: IntArray): FloatArray {
            val given = shared + ("decoder_latents" to Tensor.of(shape, part))
            return result(runner.run(stage, listOf(given))[0], "decoded")
        }
        val all = Latents.toDecoder(latents, pipeline.vae)
        val (tiles, channels) = pipeline.tiles to pipeline.latents[1]
        val decoded = tiles?.decode(all, channels) { decodePart(it, tiles.shape(channels)) }
            ?: decodePart(all, pipeline.latents)
        generator.pool.endStage()
        return Picture.of(decoded, pipeline.width, pipeline.height)
    }

    private fun preview(latents: FloatArray): Picture? = pipeline.preview?.let { preview ->
        Picture.preview(latents, width = pipeline.latents[3], height = pipeline.latents[2], preview)
    }

    private fun runStage(stage: Stage, halves: List<Values>): List<Values> {
        begin(stage)
        return runner().run(stage, halves.map { shared + it }).also { generator.pool.endStage() }
    }

    private fun begin(stage: Stage) {
        listener.onStage(stage.name)
        generator.pool.beginStage(pipeline.graphsOf(stage), before = cancellation::check)
    }

    private fun runner() = ProgramRun(pipeline, generator.constants, generator.pool::get, cancellation)

    private fun result(made: Values, name: String): FloatArray =
        (made[name] ?: throw Refusal("a program that makes no $name")).convert(DType.FLOAT32).floats()

    private fun facts(): Map<String, String> {
        val facts = linkedMapOf("prompt" to request.prompt)
        request.negativePrompt?.let { facts["negative_prompt"] = it }
        facts += mapOf("seed" to request.seed, "steps" to "$steps", "guidance" to "$guidance", "sampler" to sampler)
        facts["bundle_id"] = generator.bundle.manifest.bundleId
        if (request.picture != null) facts["strength"] = "$strength"
        return facts
    }

    private companion object {
        fun scalar(value: Float) = Tensor.of(intArrayOf(1), floatArrayOf(value))

        fun longestCut(tokens: List<Tokens>): String = tokens.map { it.cut }.maxByOrNull { it.length }.orEmpty()

        fun secondsSince(began: Long): Double = (System.nanoTime() - began) / 1e9
    }
}
