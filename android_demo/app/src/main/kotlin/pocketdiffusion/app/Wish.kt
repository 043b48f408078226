package pocketdiffusion.app

import android.net.Uri
import org.json.JSONObject
import pocketdiffusion.engine.Picture
import pocketdiffusion.engine.Request

/** What a person asked to be drawn. Null stands for what the bundle says. */
data class Wish(
    val prompt: String,
    val negativePrompt: String? = null,
    val seed: String,
    val steps: Int? = null,
    val guidance: Double? = null,
    val sampler: String? = null,
    val photo: Uri? = null,
    val strength: Double? = null,
    val unit: String? = null,
    /** Whether to hold as few graphs and halves of guidance at once as can be, though more would fit. */
    val leastMemory: Boolean = false,
) {
    fun request(picture: Picture?) = Request(
        prompt = prompt,
        negativePrompt = negativePrompt,
        seed = seed,
        steps = steps,
        guidance = guidance,
        sampler = sampler,
        picture = picture,
        strength = strength,
        oneBatch = !leastMemory,
    )

    fun toJson() = JSONObject().apply {
        put("prompt", prompt)
        put("negative_prompt", negativePrompt)
        put("seed", seed)
        put("steps", steps)
        put("guidance", guidance)
        put("sampler", sampler)
        put("photo", photo?.toString())
        put("strength", strength)
        put("unit", unit)
    }

    companion object {
        fun fromJson(json: JSONObject): Wish {
            fun text(name: String) = if (json.isNull(name)) null else json.getString(name)
            return Wish(
                prompt = json.optString("prompt"),
                negativePrompt = text("negative_prompt"),
                seed = json.optString("seed", "0"),
                steps = text("steps")?.toInt(),
                guidance = text("guidance")?.toDouble(),
                sampler = text("sampler"),
                photo = text("photo")?.let(Uri::parse),
                strength = text("strength")?.toDouble(),
                unit = text("unit"),
            )
        }

        /** Whether the engine takes it for a seed: an integer from -2^63 to 2^64-1. */
        fun isSeed(text: String): Boolean = text.toLongOrNull() != null || text.toULongOrNull() != null
    }
}
