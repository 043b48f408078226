package pocketdiffusion.app

import android.graphics.Bitmap
import pocketdiffusion.engine.Cancellation

/** Something that takes its time, as the screens and the notification show it. The main thread alone writes it. */
class Work(val kind: Kind, val name: String) {
    enum class Kind { OPEN, IMPORT, DOWNLOAD, DRAW, TEST }

    val cancellation = Cancellation()

    /** Bytes, steps or parts that are done, of how many; 0 of 0: it is not known. */
    var done = 0L
    var total = 0L

    /** A stage of the program, or a part of a self-test. */
    var stage = ""
    var secondsPerStep: Double? = null
    var preview: Bitmap? = null

    val fraction: Double? get() = if (total > 0) done.toDouble() / total else null

    /** The seconds that the steps which are left will take. */
    val secondsLeft: Double? get() = secondsPerStep?.let { it * (total - done) }

    /** Short work needs no service that keeps the app alive. */
    val isLong get() = kind != Kind.OPEN
}
