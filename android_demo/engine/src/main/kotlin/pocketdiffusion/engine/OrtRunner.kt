package pocketdiffusion.engine

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession

/** An open session. Inputs and outputs lie in direct buffers, which the engine reads and writes in place. */
internal class OrtRunner(
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
            val run = OrtSession.RunOptions().also(open::add)
            cancellation.during(stop = { run.setTerminate(true) }) {
                session.run(given, emptySet(), pinned, run).close()
            }
        } catch (error: OrtException) {
            cancellation.check() // only its words would tell this error from others
            throw EngineFailure(graph.name, reasonOf(error), error)
        } finally {
            open.asReversed().forEach { it.close() }
        }
        return convention.fromFile(outputs, sizes)
    }

    override fun close() {
        session.close()
        options.close() // must outlive the session
    }

    private fun wrap(tensor: Tensor): OnnxTensor {
        val shape = LongArray(tensor.shape.size) { tensor.shape[it].toLong() }
        return OnnxTensor.createTensor(environment, tensor.bytes(), shape, TYPES.getValue(tensor.dtype))
    }

    companion object {
        val TYPES = mapOf(
            DType.FLOAT32 to OnnxJavaType.FLOAT,
            DType.FLOAT16 to OnnxJavaType.FLOAT16,
            DType.INT32 to OnnxJavaType.INT32,
            DType.INT64 to OnnxJavaType.INT64,
            DType.UINT8 to OnnxJavaType.UINT8,
        )

        /** The engine's own words without its status before them. */
        fun reasonOf(error: OrtException): String =
            error.message.orEmpty().lineSequence().first().substringAfter("message: ")
    }
}
