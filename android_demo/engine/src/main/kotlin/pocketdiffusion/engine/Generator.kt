package pocketdiffusion.engine

import java.io.Closeable

/**
 * Draws pictures with a bundle: the parts of the other files in their order (docs/BUNDLE.md, sections 3 to 10). One thread
 * at a time; any thread may cancel.
 */
class Generator(
    val bundle: Bundle,
    private val engine: GraphEngine,
    residency: Residency = Residency.STAGE,
    /** The unit to run a graph on: the one that it was made for, if nothing else is said. */
    unitOf: (PipelineGraph) -> String = { it.computeUnit },
) : Closeable {
    val pipeline: Pipeline = bundle.pipeline(listOf(engine.format))
    val tables = StepTables(pipeline.steps, bundle.read(pipeline.steps.file))
    val tokenizers: List<Tokenizer> = pipeline.tokenizers.map { Tokenizer.open(bundle, it) }
    private val program = pipeline.program
    private val specs = pipeline.graphs.mapValues { it.value.spec }
    private val constants = program.constants.associate { it.path to bundle.array(it) }
    private val pool = GraphPool(bundle, engine, residency, unitOf)

    /** Draws one picture. Throws EngineError; Cancelled where `cancellation` was asked to. */
    fun draw(
        request: Request,
        listener: DrawListener = DrawListener.None,
        cancellation: Cancellation = Cancellation(),
    ): Drawn {
        try {
            return Drawing(request, listener, cancellation).draw()
        } finally {
            pool.endStage()
        }
    }

    override fun close() = pool.close()

    /** One picture on its way. */
    private inner class Drawing(val request: Request, val listener: DrawListener, val cancellation: Cancellation) {
        val began = System.nanoTime()
        val steps = request.steps ?: pipeline.defaults.steps
        val guidance = request.guidance ?: pipeline.defaults.guidance
        val strength = request.strength ?: pipeline.defaults.strength
        val sampler = request.sampler ?: pipeline.steps.defaultSampler
        val random = TorchRandom(request.seed)
        val shared = HashMap<String, Tensor>() // host values that do not depend on the half
        val size = Tensor.countOf(pipeline.latents)
        val start = if (request.picture == null) 0 else ImageToImage.startOf(steps, strength)
        val run = tables.read(sampler, steps, start)

        fun draw(): Drawn {
            val (width, height) = pipeline.width to pipeline.height
            if (program.guidance == Program.Guidance.EMBEDDED) shared["guidance"] = scalar(guidance.toFloat())
            request.picture?.let { shared["picture"] = ImageToImage.resize(it, width, height).toTensor() }
            val there = program.hosts(tokenizers.size, request.picture != null)
            val encodePrompt = program.variant(Program.ENCODE_PROMPT, there)
            val encodeImage = request.picture?.let {
                program.variant(Program.ENCODE_IMAGE, there)
                    ?: throw BadRequest("This bundle cannot start from a picture.")
            }
            val denoise = checkNotNull(program.variant(Program.DENOISE, there)) // Program.read saw to it
            val decode = checkNotNull(program.variant(Program.DECODE, there))

            val prompts = listOf<String?>(request.prompt).toMutableList()
            if (program.guidance == Program.Guidance.CLASSIFIER_FREE &&
                guidance > 1
            ) {
                prompts.add(0, request.negativePrompt)
            }
            val tokens = prompts.map { text -> tokenizers.map { it.input(text ?: "") } }
            val halves = encode(encodePrompt, prompts, tokens)
            val first = start(encodeImage)
            val latents = denoise(denoise, halves, first)

            val scaled = Latents.toDecoder(latents, pipeline.vae)
            val decoded = stage(decode, listOf(shared + ("decoder_latents" to Tensor.of(pipeline.latents, scaled))))
            val numbers = result(decoded[0], "decoded").floats()
            fun cut(half: List<Tokens>) = half.map { it.cut }.maxByOrNull { it.length }.orEmpty()
            return Drawn(
                picture = Picture.of(numbers, width, height),
                latents = latents,
                cut = cut(tokens.last()),
                negativeCut = if (tokens.size > 1) cut(tokens.first()) else "",
                seconds = secondsSince(began),
                facts = facts(),
            )
        }

        /** The values of each half, negative first: those that encode_prompt makes, and those that it begins with. */
        private fun encode(stage: Stage?, prompts: List<String?>, tokens: List<List<Tokens>>): List<Values> {
            val (height, width) = pipeline.height.toFloat() to pipeline.width.toFloat()
            val timeIds = Tensor.of(intArrayOf(1, 6), floatArrayOf(height, width, 0f, 0f, height, width))
            val own = tokens.map { half ->
                val values = HashMap<String, Tensor>()
                values["time_ids"] = timeIds
                for ((n, one) in half.withIndex()) {
                    values["tokens/${n + 1}"] = Tensor.of(intArrayOf(1, one.ids.size), one.ids)
                    values["attention_mask/${n + 1}"] = Tensor.of(intArrayOf(1, one.mask.size), one.mask)
                }
                values
            }
            if (stage == null) return own
            val isZeros = prompts.map { it == null && program.absentIsZeros }
            val made = ArrayDeque(stage(stage, own.filterIndexed { i, _ -> !isZeros[i] }.map { shared + it }))
            return own.mapIndexed { i, values ->
                values + if (isZeros[i]) runner().zeros(stage) else made.removeFirst()
            }
        }

        /** The latents before the first row. Noise is drawn in the program's order. */
        private fun start(encodeImage: Stage?): FloatArray {
            val made = encodeImage?.let { stage(it, listOf(shared))[0] }
            var noise: FloatArray? = null
            var posteriorNoise: FloatArray? = null
            for (draw in program.draws) {
                if (draw == Program.Draw.START) noise = random.normal(size)
                if (draw == Program.Draw.POSTERIOR &&
                    made?.containsKey("posterior") == true
                ) {
                    posteriorNoise = random.normal(size)
                }
            }
            val image = made?.let {
                val posterior = it["posterior"]?.floats()
                val z = if (posterior == null) {
                    result(it, "image_latents").floats()
                } else {
                    Latents.sample(posterior, posteriorNoise ?: throw Refusal("a posterior without a draw"))
                }
                Latents.fromEncoder(z, pipeline.vae)
            }
            return Latents.first(run, noise ?: throw Refusal("a program without the draw start"), image)
        }

        private fun denoise(stage: Stage, halves: List<Values>, first: FloatArray): FloatArray {
            listener.onStage(stage.name)
            val stacked = request.oneBatch && halves.size > 1 && program.canStack(stage)
            val denoising = Denoising(first)
            val runner = runner(alone = false)
            for ((r, row) in run.rows.withIndex()) {
                cancellation.check()
                val rowBegan = System.nanoTime()
                val latents = denoising.latents
                val isUnused = r == run.rows.size - 1 && !row.usesOutput
                val output = if (isUnused) {
                    latents // no part of the next latents: the call is left out
                } else {
                    val values = shared + mapOf(
                        "latents" to Tensor.of(pipeline.latents, latents),
                        "scaled_latents" to Tensor.of(pipeline.latents, denoising.scaled(row)),
                        "timestep" to scalar(row.timestep),
                    )
                    val made = runner.run(stage, halves.map { values + it }, stacked)
                    val outputs = made.map { result(it, "model_output").floats() }
                    if (outputs.size > 1) Latents.guide(outputs[0], outputs[1], guidance) else outputs[0]
                }
                denoising.advance(row, output, if (row.drawsNoise) random.normal(size) else null)
                listener.onStep(StepDone(r + 1, run.rows.size, secondsSince(rowBegan), denoising.latents, ::preview))
            }
            pool.endStage()
            return denoising.latents
        }

        private fun preview(latents: FloatArray): Picture? {
            val (_, _, height, width) = pipeline.latents.toList()
            return pipeline.preview?.let { Picture.preview(latents, width, height, it) }
        }

        private fun stage(stage: Stage, halves: List<Values>): List<Values> {
            listener.onStage(stage.name)
            return runner().run(stage, halves).also { pool.endStage() }
        }

        private fun runner(alone: Boolean = true) =
            ProgramRun(program, specs, constants, { pool.get(pipeline.graphs.getValue(it), alone) }, cancellation)

        private fun result(made: Values, name: String): Tensor =
            made[name] ?: throw Refusal("a program that makes no $name")

        private fun facts(): Map<String, String> {
            val facts = linkedMapOf("prompt" to request.prompt)
            request.negativePrompt?.let { facts["negative_prompt"] = it }
            facts += mapOf("seed" to request.seed, "steps" to "$steps", "guidance" to "$guidance", "sampler" to sampler)
            facts["bundle_id"] = bundle.manifest.bundleId
            if (request.picture != null) facts["strength"] = "$strength"
            return facts
        }
    }

    private companion object {
        fun scalar(value: Float) = Tensor.of(intArrayOf(1), floatArrayOf(value))

        fun secondsSince(began: Long) = (System.nanoTime() - began) / 1e9
    }
}
