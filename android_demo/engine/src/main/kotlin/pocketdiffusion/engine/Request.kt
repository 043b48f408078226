package pocketdiffusion.engine

/** What to draw. What is null is as the bundle's defaults say. */
class Request(
    val prompt: String,
    /** Null: none was given, which is not the same as an empty one. */
    val negativePrompt: String? = null,
    /** An integer from -2^63 to 2^64-1. */
    val seed: String,
    val steps: Int? = null,
    val guidance: Double? = null,
    val sampler: String? = null,
    /** For image to image; of any size. */
    val picture: Picture? = null,
    val strength: Double? = null,
    /** Whether both halves of guidance go through a graph in one call, where the program allows it. */
    val oneBatch: Boolean = true,
)

/** Hears how a drawing goes on; called on the thread that draws. */
interface DrawListener {
    /** A stage of the program begins, such as encode_prompt or decode. */
    fun onStage(name: String) {}

    /** A row of the step table is done: `row` of `rows`, counted from 1. */
    fun onStep(step: StepDone) {}

    object None : DrawListener
}

/** One step that is done. */
class StepDone(
    val row: Int,
    val rows: Int,
    val seconds: Double,
    val latents: FloatArray,
    private val makePreview: (FloatArray) -> Picture?,
) {
    /** A rough picture, one pixel for each latent; null where the bundle has no matrix for it. */
    fun preview(): Picture? = makePreview(latents)
}

/** A picture, and how it came to be. */
class Drawn(
    val picture: Picture,
    val latents: FloatArray,
    /** The ends of the prompts for which there was no room, or empty texts. */
    val cut: String,
    val negativeCut: String,
    val seconds: Double,
    /** What a PNG file says of how the picture was made. */
    val facts: Map<String, String>,
)
