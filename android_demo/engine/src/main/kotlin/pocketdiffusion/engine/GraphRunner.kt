package pocketdiffusion.engine

import java.io.Closeable

/**
 * A graph that is open. Values go in and come out in the convention of the graph's `spec`. A value that is not finite
 * among the outputs is an error at once (NotFinite), and so is what the engine refuses (EngineFailure).
 */
interface GraphRunner : Closeable {
    fun run(inputs: Values, cancellation: Cancellation = Cancellation()): Values
}

/** Opens the graphs of one format. */
interface GraphEngine {
    /** The name and version that a device report states. */
    val name: String
    val version: String

    /** Formats of a bundle that it opens. */
    val format: String

    /** The units that this engine has here, such as cpu, gpu, npu. */
    val units: List<String>

    /** What a unit computes in: the graph's own arithmetic, but for units that compute in float16 whatever the file says. */
    fun arithmeticOf(graph: PipelineGraph, unit: String): String

    /** Opens a graph on a unit. Throws UnitKnownBad, EngineTooOld, CannotRunHere or EngineFailure. */
    fun open(bundle: Bundle, graph: PipelineGraph, unit: String): GraphRunner
}

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
