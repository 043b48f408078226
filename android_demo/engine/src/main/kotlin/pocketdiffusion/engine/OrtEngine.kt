package pocketdiffusion.engine

import ai.onnxruntime.NodeInfo
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import java.io.File

/**
 * onnxruntime by its Java API: the same classes on a computer's JVM and on Android. `threads` 0 leaves their number to the
 * engine. `xnnpack` gives CPU work to XNNPACK where this build of the engine has it, which a JVM's has not.
 */
class OrtEngine(private val threads: Int = 0, private val xnnpack: Boolean = false) : GraphEngine {
    private val environment by lazy { OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL) }

    override val name = "onnxruntime"
    override val version: String by lazy { environment.version }
    override val format = "onnx"
    override val units = listOf(CPU)

    override fun arithmeticOf(graph: PipelineGraph, unit: String) = graph.arithmetic

    override fun open(bundle: Bundle, graph: PipelineGraph, unit: String): GraphRunner {
        graph.checkUnit(unit)
        check(graph, unit)
        for (file in graph.files) bundle.locate(file)
        val options = OrtSession.SessionOptions()
        try {
            configure(options)
            val session = environment.createSession(bundle.locate(graph.path).toString(), options)
            try {
                compare(graph, "inputs", graph.fileSpec.inputs, session.inputInfo)
                compare(graph, "outputs", graph.fileSpec.outputs, session.outputInfo)
                return OrtRunner(environment, graph, session, options)
            } catch (error: EngineError) {
                session.close()
                throw error
            }
        } catch (error: OrtException) {
            options.close()
            throw EngineFailure(graph.name, reasonOf(error), error)
        } catch (error: EngineError) {
            options.close()
            throw error
        }
    }

    private fun check(graph: PipelineGraph, unit: String) {
        val engine = graph.engine
        if (engine != null && engine.name != name) throw CannotRunHere(graph.name, "its file is for ${engine.name}")
        if (unit !in units) throw CannotRunHere(graph.name, "$name has no unit $unit in this app")
        val least = engine?.leastVersion ?: return
        if (isOlder(version, least)) throw EngineTooOld(graph.name, name, least, version)
    }

    private fun configure(options: OrtSession.SessionOptions) {
        options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL) // what it has to say arrives as an exception
        options.setDeterministicCompute(true)
        options.addConfigEntry("session.intra_op.allow_spinning", "0")
        if (sumsSaturate()) options.addConfigEntry("session.x64quantprecision", "1")
        if (xnnpack) {
            options.addXnnpack(mapOf("intra_op_num_threads" to "${Math.max(threads, 1)}"))
            options.setIntraOpNumThreads(1) // XNNPACK has threads of its own
        } else if (threads > 0) {
            options.setIntraOpNumThreads(threads)
        }
    }

    /** The file's tensors are those that the manifest promises. */
    private fun compare(graph: PipelineGraph, what: String, told: List<TensorSpec>, found: Map<String, NodeInfo>) {
        val actual = found.values.map { describe(it.name, it.info as? TensorInfo) }.toSet()
        val wanted = told.map {
            "${it.name} ${it.dtype}${it.shape.map { axis -> axis.name?.let { -1 } ?: axis.length }}"
        }.toSet()
        if (actual != wanted) throw EngineFailure(graph.name, "its file has the $what $actual, not $wanted")
    }

    private fun describe(name: String, info: TensorInfo?) = "$name ${TYPES.entries.firstOrNull {
        it.value == info?.type
    }?.key ?: info?.type}${info?.shape?.map { it.toInt() }}"

    companion object {
        const val CPU = "cpu"
        internal val TYPES = mapOf(
            DType.FLOAT32 to OnnxJavaType.FLOAT,
            DType.FLOAT16 to OnnxJavaType.FLOAT16,
            DType.INT32 to OnnxJavaType.INT32,
            DType.INT64 to OnnxJavaType.INT64,
            DType.UINT8 to OnnxJavaType.UINT8,
        )

        /** Whether version `a` comes before `b`; both are numbers with points between. */
        internal fun isOlder(a: String, b: String): Boolean {
            val (left, right) = listOf(a, b).map { text -> text.split('.', '-', '+').map { it.toIntOrNull() ?: 0 } }
            for (i in 0 until Math.max(left.size, right.size)) {
                val order = left.getOrElse(i) { 0 }.compareTo(right.getOrElse(i) { 0 })
                if (order != 0) return order < 0
            }
            return false
        }

        /** The engine's own words without its status before them. */
        internal fun reasonOf(error: OrtException): String =
            error.message.orEmpty().lineSequence().first().substringAfter("Error code - ").substringAfter("message: ")

        /** Whether the engine's sums of int8 are exact only if it is told: on x86 without VNNI. */
        private fun sumsSaturate(): Boolean {
            if (System.getProperty("os.arch") !in listOf("amd64", "x86_64")) return false
            val facts = File("/proc/cpuinfo")
            return !facts.canRead() || "vnni" !in facts.readText()
        }
    }
}

/** An open session. Inputs and outputs lie in direct buffers, which the engine reads and writes in place. */
private class OrtRunner(
    private val environment: OrtEnvironment,
    private val graph: PipelineGraph,
    private val session: OrtSession,
    private val options: OrtSession.SessionOptions,
) : GraphRunner {
    private val convention = FileConvention(graph)

    override fun run(inputs: Values, cancellation: Cancellation): Values {
        val sizes = convention.sizesOf(inputs)
        val outputs = graph.fileSpec.outputs.associate { it.name to Tensor.make(it.dtype, it.resolve(sizes)) }
        val open = ArrayList<AutoCloseable>()
        try {
            val given = convention.toFile(inputs, sizes).mapValues { wrap(it.value).also(open::add) }
            val pinned = outputs.mapValues { wrap(it.value).also(open::add) }
            val runOptions = OrtSession.RunOptions().also(open::add)
            cancellation.during({
                runOptions.setTerminate(true)
            }) { session.run(given, emptySet(), pinned, runOptions).close() }
        } catch (error: OrtException) {
            cancellation.check() // of all that the engine throws only its text would tell that it was told to stop
            throw EngineFailure(graph.name, OrtEngine.reasonOf(error), error)
        } finally {
            open.asReversed().forEach { it.close() }
        }
        return convention.fromFile(outputs, sizes)
    }

    private fun wrap(tensor: Tensor): OnnxTensor {
        val shape = LongArray(tensor.shape.size) { tensor.shape[it].toLong() }
        return OnnxTensor.createTensor(environment, tensor.bytes(), shape, OrtEngine.TYPES.getValue(tensor.dtype))
    }

    override fun close() {
        session.close()
        options.close()
    }
}
