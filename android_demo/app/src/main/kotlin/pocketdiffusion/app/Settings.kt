package pocketdiffusion.app

import android.content.Context
import android.net.Uri
import kotlin.random.Random
import kotlin.random.nextUInt

/** What the person chose last; it is there again at the next start. */
class Settings(context: Context) {
    private val store = context.getSharedPreferences("settings", Context.MODE_PRIVATE)

    var bundle: String? by text("bundle")
    var address: String? by text("address")
    var prompt: String? by text("prompt")
    var negativePrompt: String? by text("negative_prompt")
    var sampler: String? by text("sampler")
    var unit: String? by text("unit")
    private var seedText: String? by text("seed")
    private var seedDrawnText: String? by text("seed_drawn")
    private var stepsText: String? by text("steps")
    private var guidanceText: String? by text("guidance")
    private var strengthText: String? by text("strength")
    private var keepsSeedText: String? by text("keeps_seed")
    private var photoText: String? by text("photo")

    var seed: String
        get() = seedText ?: "1"
        set(value) {
            seedText = value
            isSeedDrawn = false
        }

    /** Whether a picture was drawn with the seed since it was chosen. */
    var isSeedDrawn: Boolean
        get() = seedDrawnText == "true"
        set(value) {
            seedDrawnText = "$value"
        }
    var keepsSeed: Boolean
        get() = keepsSeedText == "true"
        set(value) {
            keepsSeedText = "$value"
        }
    var steps: Int?
        get() = stepsText?.toIntOrNull()
        set(value) {
            stepsText = value?.toString()
        }
    var guidance: Double?
        get() = guidanceText?.toDoubleOrNull()
        set(value) {
            guidanceText = value?.toString()
        }
    var strength: Double?
        get() = strengthText?.toDoubleOrNull()
        set(value) {
            strengthText = value?.toString()
        }
    var photo: Uri?
        get() = photoText?.let(Uri::parse)
        set(value) {
            photoText = value?.toString()
        }

    fun newSeed() {
        seed = Random.nextUInt().toString()
    }

    /** Forgets what another bundle may not have. */
    fun forgetBundle() {
        steps = null
        guidance = null
        strength = null
        sampler = null
        unit = null
        photo = null
    }

    /** Whether a bundle that came with the app was unpacked once, and may have been deleted since. */
    fun wasUnpacked(name: String) = store.getBoolean("unpacked $name", false)

    fun noteUnpacked(name: String) = store.edit().putBoolean("unpacked $name", true).apply()

    /** The bundle_id of what was unpacked under a name; null where nothing was, or what was is deleted. */
    fun unpackedId(name: String): String? = store.getString("unpacked id $name", null)

    fun noteUnpackedId(name: String, id: String?) = store.edit().putString("unpacked id $name", id).apply()

    private fun text(key: String) = object : kotlin.properties.ReadWriteProperty<Any?, String?> {
        override fun getValue(thisRef: Any?, property: kotlin.reflect.KProperty<*>): String? =
            store.getString(key, null)

        override fun setValue(thisRef: Any?, property: kotlin.reflect.KProperty<*>, value: String?) =
            store.edit().putString(key, value).apply()
    }
}
