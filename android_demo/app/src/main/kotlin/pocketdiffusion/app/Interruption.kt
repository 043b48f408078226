package pocketdiffusion.app

import org.json.JSONException
import org.json.JSONObject
import java.io.File
import java.io.IOException

/** Remembers on disk what is being drawn, so that the next start knows what the system ended. */
class Interruption(private val file: File) {
    /** What the last process was drawing when it ended; null: it was not. */
    fun read(): Wish? = try {
        if (file.isFile) Wish.fromJson(JSONObject(file.readText())) else null
    } catch (_: IOException) {
        null
    } catch (_: JSONException) {
        Wish(prompt = "", seed = "1")
    }

    /** Throws IOException. */
    fun begin(wish: Wish) = file.replaceWith("${wish.toJson()}".toByteArray())

    fun end() {
        file.delete()
    }
}
