package pocketdiffusion.app

import android.content.Context
import android.content.Intent
import android.net.Uri
import org.json.JSONArray
import org.json.JSONObject
import java.io.File
import java.io.IOException

/**
 * Draws or tests for a computer, without a touch:
 *
 *     adb shell am start -n pocketdiffusion.app/.MainActivity --es run draw --es prompt "'red apple'" --es seed 7
 *     adb shell am start -n pocketdiffusion.app/.MainActivity --es run self-test
 *     adb pull /sdcard/Android/data/pocketdiffusion.app/files/results
 *
 * `draw` also takes bundle, negative_prompt, steps, guidance, sampler, strength, photo (a path on the phone) and unit;
 * values may be of any type. draw.json or self-test.json says `"status": "running"` first, then "done" or "failed":
 * one that goes on saying "running" is of a process that was ended.
 */
object Headless {
    private const val RUN = "run"
    private const val DRAW = "draw"
    private const val TEST = "self-test"

    /** Begins what an intent asks for, and returns whether it asks for something. */
    fun run(screen: MainActivity, intent: Intent?): Boolean {
        val extras = intent?.extras ?: return false

        @Suppress("DEPRECATION") // of any type
        fun text(name: String): String? = extras.get(name)?.toString()
        val what = text(RUN) ?: return false
        intent.removeExtra(RUN) // not again after a rotation
        val results = Results(screen, screen.studio, what)
        if (what != DRAW && what != TEST) {
            results.fail("run is $DRAW or $TEST, and not $what", "BadRequest")
            return true
        }
        results.write("running")
        screen.studio.unpackShipped(results::fail) { begin(screen.studio, what, ::text, results) }
        return true
    }

    private fun begin(studio: Studio, what: String, text: (String) -> String?, results: Results) {
        val wished = text("bundle") ?: studio.settings.bundle
        val place = studio.library.find(wished) ?: studio.library.first().takeIf { wished == null }
        if (place == null) {
            results.fail("there is no bundle ${wished.orEmpty()} in ${studio.library.pushed}", "NotABundle")
            return
        }
        val work = {
            if (what == DRAW) {
                studio.draw(wishOf(text), then = results::done, failed = results::fail)
            } else {
                studio.test(then = results::done, failed = results::fail)
            }
        }
        if (studio.opened?.place == place) work() else studio.open(place, then = work, failed = results::fail)
    }

    private fun wishOf(text: (String) -> String?) = Wish(
        prompt = text("prompt").orEmpty(),
        negativePrompt = text("negative_prompt"),
        seed = text("seed") ?: "1",
        steps = text("steps")?.toIntOrNull(),
        guidance = text("guidance")?.toDoubleOrNull(),
        sampler = text("sampler"),
        photo = text("photo")?.let { Uri.fromFile(File(it)) },
        strength = text("strength")?.toDoubleOrNull(),
        unit = text("unit"),
    )

    /** The files that `adb pull` takes. */
    private class Results(context: Context, private val studio: Studio, private val what: String) {
        private val folder = context.getExternalFilesDir("results") ?: File(context.filesDir, "results")
        private val words = Messages(context.resources)

        init {
            folder.mkdirs()
            for (stale in listOf("$what.json", "draw.png", "device_report.json")) {
                if (stale.startsWith(what) ||
                    what == TEST &&
                    stale == "device_report.json"
                ) {
                    File(folder, stale).delete()
                }
            }
        }

        fun write(status: String, facts: JSONObject.() -> Unit = {}) {
            val result = JSONObject().put("status", status).apply(facts)
            keep("$what.json", (result.toString(2) + "\n").toByteArray())
        }

        /** Writes a file, or tells on the screen that it could not; the app goes on. */
        private fun keep(name: String, bytes: ByteArray) = try {
            File(folder, name).replaceWith(bytes)
        } catch (error: IOException) {
            studio.show(NotWritten(name, error))
        }

        fun fail(error: Throwable) = fail(error.message ?: "$error", error.javaClass.simpleName, words.of(error))

        fun fail(why: String, type: String, shown: Message? = null) = write("failed") {
            put("error", type)
            put("message", why)
            if (shown != null) put("shown", listOf(shown.title, shown.text).joinToString(" "))
            if (shown != null && shown.files.isNotEmpty()) put("files", JSONArray(shown.files))
        }

        fun done(finished: Finished) {
            keep("draw.png", finished.png)
            write("done") {
                put("picture", "draw.png")
                put("seconds", finished.seconds)
                put("seconds_per_step", finished.secondsPerStep)
                put("facts", JSONObject(finished.facts))
                put("cut", finished.cut)
                put("one_graph_at_a_time", finished.isOneByOne)
                put("fallbacks", JSONObject(finished.fallbacks.mapValues { "${it.value.message}" }))
            }
        }

        fun done(tested: Tested) {
            keep("device_report.json", tested.report.toJson().toByteArray())
            write("done") {
                put("passed", tested.report.passed)
                put("report", "device_report.json")
            }
        }
    }
}
