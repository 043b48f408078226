package pocketdiffusion.app

import android.graphics.Bitmap
import pocketdiffusion.engine.Png
import java.io.File
import java.io.IOException

/** The picture that was drawn last: kept as the PNG that is saved and shared, which says how it was made. */
class Finished(val png: ByteArray, val bitmap: Bitmap, val facts: Map<String, String>) {
    /** The ends of the prompts that had no room, or empty texts. */
    var cut = ""
    var negativeCut = ""
    var seconds: Double? = null
    var secondsPerStep: Double? = null

    /** Graphs that ran on the CPU and not where they were wished to, each with the reason. */
    var fallbacks: Map<String, Throwable> = emptyMap()

    /** Whether one graph was open at a time, since the memory had no room for those of a step. */
    var isOneByOne = false

    /** Whether the next start has it, too; there may be no room. */
    var isKept = true

    /** The name of its file. */
    val name: String get() = fileName(facts)

    companion object {
        fun read(file: File): Finished? = try {
            val png = file.readBytes()
            Finished(png, Bitmaps.of(Png.read(png, file.name)), Png.readFacts(png, file.name))
        } catch (_: IOException) {
            null
        } catch (_: pocketdiffusion.engine.Contradiction) { // cut off when the phone was switched off
            null
        }

        private fun fileName(facts: Map<String, String>): String {
            val words = facts["prompt"].orEmpty().replace(Regex("[^\\p{L}\\p{N}]+"), "-").trim('-').take(40)
            return listOf(words.ifEmpty { "picture" }, facts["seed"].orEmpty()).joinToString("-") + ".png"
        }
    }
}
