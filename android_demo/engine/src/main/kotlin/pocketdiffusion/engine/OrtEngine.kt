package pocketdiffusion.engine

import ai.onnxruntime.NodeInfo
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import java.io.File

/**
 * onnxruntime by its Java API: the same classes on a computer's JVM and on Android, though a JVM's build has the CPU
 * alone.
 */
class OrtEngine(
    /** Threads on the CPU; 0 leaves their number to the engine. */
    private val threads: Int = 0,
    /** Gives work of the CPU to XNNPACK. */
    private val xnnpack: Boolean = false,
    /** The library of Qualcomm's NPU, such as libQnnHtp.so; null: this app has none. */
    private val qnnLibrary: String? = null,
    /** The phone's processor as its system names it, such as SM8650-AC; null: it does not. */
    private val soc: String? = null,
) : GraphEngine {
    private val environment by lazy {
        OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL).also { it.setTelemetry(false) }
    }

    override val name = "onnxruntime"
    override val version: String by lazy { environment.version }
    override val format = "onnx"
    override val units = if (qnnLibrary == null) listOf(CPU) else listOf(CPU, NPU)

    override fun arithmeticOf(graph: PipelineGraph, unit: String) =
        if (unit == NPU && graph.arithmetic == "float32") "float16" else graph.arithmetic

    override fun check(graph: PipelineGraph, unit: String) {
        val needed = graph.engine
        if (needed != null && needed.name != name) throw CannotRunHere(graph.name, "its file is for ${needed.name}")
        graph.checkProcessor(soc)
        if (unit !in units) throw UnitNotHere(graph.name, unit, name)
        val least = needed?.leastVersion
        if (least != null && isOlder(version, least)) throw EngineTooOld(graph.name, name, least, version)
        graph.checkUnit(unit)
    }

    override fun open(bundle: Bundle, graph: PipelineGraph, unit: String): GraphRunner {
        check(graph, unit)
        for (file in graph.files) bundle.locate(file)
        val open = ArrayList<AutoCloseable>()
        var runner: GraphRunner? = null
        try {
            val options = OrtSession.SessionOptions().also(open::add)
            configure(options, unit)
            val session = environment.createSession(bundle.locate(graph.path).toString(), options).also(open::add)
            compare(graph, "inputs", graph.fileSpec.inputs, session.inputInfo)
            compare(graph, "outputs", graph.fileSpec.outputs, session.outputInfo)
            return OrtRunner(environment, graph, session, options).also { runner = it }
        } catch (error: OrtException) {
            throw EngineFailure(graph.name, OrtRunner.reasonOf(error), error)
        } finally {
            if (runner == null) open.asReversed().forEach { it.close() }
        }
    }

    private fun configure(options: OrtSession.SessionOptions, unit: String) {
        options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL) // it says all in exceptions
        options.setDeterministicCompute(true)
        // Each tensor is freed after it was read for the last time: the arena would keep the memory of a whole call,
        // and the pattern a second copy of it from the second call on (benchmarks/android_memory.py).
        options.setCPUArenaAllocator(false)
        options.setMemoryPatternOptimization(false)
        options.addConfigEntry("session.intra_op.allow_spinning", "0")
        if (sumsSaturate()) options.addConfigEntry("session.x64quantprecision", "1")
        if (unit == NPU) {
            options.addQnn(mapOf("backend_path" to checkNotNull(qnnLibrary)))
            options.addConfigEntry("session.disable_cpu_ep_fallback", "1") // what the NPU cannot do must not go unseen
        } else if (xnnpack) {
            options.addXnnpack(mapOf("intra_op_num_threads" to "${Math.max(threads, 1)}"))
            options.setIntraOpNumThreads(1) // XNNPACK has threads of its own
        } else if (threads > 0) {
            options.setIntraOpNumThreads(threads)
        }
    }

    /** Whether the file's tensors are those that the manifest promises. */
    private fun compare(graph: PipelineGraph, what: String, told: List<TensorSpec>, found: Map<String, NodeInfo>) {
        val wanted = told.map { tensor ->
            val shape = tensor.shape.map { if (it.name == null) it.length.toLong() else -1L }
            "${tensor.name} ${OrtRunner.TYPES[tensor.dtype]}$shape"
        }
        val actual = found.values.map { node ->
            val info = node.info as? TensorInfo
            "${node.name} ${info?.type}${info?.shape?.toList()}"
        }
        if (actual.toSet() != wanted.toSet()) {
            throw EngineFailure(graph.name, "its file has the $what $actual, where the manifest promises $wanted")
        }
    }

    companion object {
        private const val CPU = "cpu"
        private const val NPU = "npu"

        /** Whether the engine's sums of int8 are exact only if it is told: on x86 without VNNI. */
        private fun sumsSaturate(): Boolean {
            if (System.getProperty("os.arch") !in listOf("amd64", "x86_64")) return false
            val facts = File("/proc/cpuinfo")
            return !facts.canRead() || "vnni" !in facts.readText()
        }
    }
}
