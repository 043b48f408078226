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

    /**
     * What a unit computes in: the graph's own arithmetic, but for units that compute in float16 whatever the file
     * says.
     */
    fun arithmeticOf(graph: PipelineGraph, unit: String): String

    /**
     * Whether the graph can be run on a unit, as far as the manifest tells. Throws UnitKnownBad, UnitNotHere,
     * EngineTooOld or CannotRunHere.
     */
    fun check(graph: PipelineGraph, unit: String)

    /** Opens a graph on a unit. Throws what `check` throws, NotWhole for its files, and EngineFailure. */
    fun open(bundle: Bundle, graph: PipelineGraph, unit: String): GraphRunner
}

/** Whether version `a` comes before `b`; both are numbers with points between. */
fun isOlder(a: String, b: String): Boolean {
    val (left, right) = listOf(a, b).map { text -> text.split('.', '-', '+').map { it.toIntOrNull() ?: 0 } }
    for (i in 0 until Math.max(left.size, right.size)) {
        val order = left.getOrElse(i) { 0 }.compareTo(right.getOrElse(i) { 0 })
        if (order != 0) return order < 0
    }
    return false
}
