package pocketdiffusion.app

import org.json.JSONException
import org.json.JSONObject
import java.io.File

/** Remembers on disk what is being drawn, so that the next start knows what the system ended. */
class Interruption(private val file: File) {
    /** What the last process was drawing when it ended; null: it was not. */
    fun read(): Wish? = try {
        if (file.isFile) Wish.fromJson(JSONObject(file.readText())) else null
    } catch (_: JSONException) {
        Wish(prompt = "", seed = "1")
    }

    fun begin(wish: Wish) = file.writeText("${wish.toJson()}")

    fun end() {
        file.delete()
    }
}
