package pocketdiffusion.engine

/** A wish to stop, which any thread may say. */
class Cancellation {
    private val lock = Any()
    private var stopped = false
    private var onCancel: (() -> Unit)? = null

    val isCancelled: Boolean get() = synchronized(lock) { stopped }

    fun cancel() = synchronized(lock) {
        stopped = true
        onCancel?.invoke()
        Unit
    }

    /** Throws Cancelled where it was wished. */
    fun check() {
        if (isCancelled) throw Cancelled()
    }

    /** Does `work`, which `stop`, called from another thread, ends early. After `work` no `stop` is called any more. */
    fun <T> during(stop: () -> Unit, work: () -> T): T {
        synchronized(lock) {
            if (stopped) throw Cancelled()
            onCancel = stop
        }
        try {
            return work()
        } finally {
            synchronized(lock) { onCancel = null }
        }
    }
}
