package pocketdiffusion.app

/**
 * Lets news through at once where they are of another subject, and else no more often than each `millis`: the main
 * thread has more to do than to show how far something is. One thread alone asks.
 */
class Pace(private val millis: Long, private val nanos: () -> Long = System::nanoTime) {
    private var subject: String? = null
    private var last = 0L

    /** Whether to tell of `subject` now. */
    fun allows(subject: String): Boolean {
        val now = nanos()
        if (subject == this.subject && now - last < millis * 1_000_000) return false
        this.subject = subject
        last = now
        return true
    }
}
