package pocketdiffusion.tflite

import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.TensorFlowLite
import org.tensorflow.lite.gpu.GpuDelegate
import org.tensorflow.lite.gpu.GpuDelegateFactory
import pocketdiffusion.engine.Bundle
import pocketdiffusion.engine.Cancellation
import pocketdiffusion.engine.CannotRunHere
import pocketdiffusion.engine.EngineFailure
import pocketdiffusion.engine.EngineTooOld
import pocketdiffusion.engine.FileConvention
import pocketdiffusion.engine.GraphEngine
import pocketdiffusion.engine.GraphRunner
import pocketdiffusion.engine.PipelineGraph
import pocketdiffusion.engine.Tensor
import pocketdiffusion.engine.UnitNotHere
import pocketdiffusion.engine.Values
import pocketdiffusion.engine.isOlder

/**
 * TensorFlow Lite by its Interpreter: the CPU through XNNPACK, and the GPU by its delegate, which is asked to compute
 * in float32. A delegate belongs to the thread that made it: open and run a graph on one thread. Never run on a JVM,
 * for which there is no library.
 */
class TfliteEngine(
    /** Threads on the CPU; 0 leaves their number to the engine. */
    private val threads: Int = 0,
    /** Whether this device's GPU can be asked (`CompatibilityList` says so). */
    hasGpu: Boolean = false,
    /** The phone's processor as its system names it; null: it does not. */
    private val soc: String? = null,
    readVersion: () -> String = TensorFlowLite::runtimeVersion,
) : GraphEngine {
    override val name = "litert"
    override val version: String by lazy(readVersion)
    override val format = "tflite"
    override val units = if (hasGpu) listOf(CPU, GPU) else listOf(CPU)

    override fun arithmeticOf(graph: PipelineGraph, unit: String) = graph.arithmetic

    override fun check(graph: PipelineGraph, unit: String) {
        val needed = graph.engine
        if (needed != null && needed.name != name) throw CannotRunHere(graph.name, "its file is for ${needed.name}")
        if (needed?.signature == null) throw CannotRunHere(graph.name, "the manifest names no signature of its file")
        if ((graph.fileSpec.inputs + graph.fileSpec.outputs).any { tensor -> tensor.shape.any { it.name != null } }) {
            throw CannotRunHere(graph.name, "its file has free axes")
        }
        graph.checkProcessor(soc)
        if (unit !in units) throw UnitNotHere(graph.name, unit, name)
        val least = needed.leastVersion
        if (least != null && isOlder(version, least)) throw EngineTooOld(graph.name, name, least, version)
        graph.checkUnit(unit)
    }

    override fun open(bundle: Bundle, graph: PipelineGraph, unit: String): GraphRunner {
        check(graph, unit)
        for (file in graph.files) bundle.locate(file)
        var delegate: Delegate? = null
        var runner: GraphRunner? = null
        try {
            val options = Interpreter.Options().setUseXNNPACK(true).setCancellable(true)
            if (threads > 0) options.setNumThreads(threads)
            if (unit == GPU) {
                val exact = GpuDelegateFactory.Options().setPrecisionLossAllowed(graph.arithmetic == "float16")
                delegate = GpuDelegate(exact).also { options.addDelegate(it) }
            }
            val interpreter = Interpreter(bundle.locate(graph.path).toFile(), options)
            return TfliteRunner(graph, interpreter, delegate).also { runner = it }
        } catch (error: RuntimeException) { // what it throws where it cannot open a file or prepare a delegate
            throw EngineFailure(graph.name, error.message.orEmpty(), error)
        } finally {
            if (runner == null) delegate?.close()
        }
    }

    private companion object {
        const val CPU = "cpu"
        const val GPU = "gpu"
    }
}

private class TfliteRunner(
    private val graph: PipelineGraph,
    private val interpreter: Interpreter,
    private val delegate: Delegate?,
) : GraphRunner {
    private val convention = FileConvention(graph)

    override fun run(inputs: Values, cancellation: Cancellation): Values {
        val sizes = convention.sizesOf(inputs)
        val given = convention.toFile(inputs, sizes).mapValues { it.value.bytes() as Any }
        val outputs = graph.fileSpec.outputs.associate { it.name to Tensor.make(it.dtype, it.resolve(sizes)) }
        val into = outputs.mapValues { it.value.bytes() as Any }
        try {
            interpreter.setCancelled(false)
            cancellation.during(stop = { interpreter.setCancelled(true) }) {
                interpreter.runSignature(given, into, graph.engine!!.signature)
            }
        } catch (error: RuntimeException) {
            cancellation.check()
            throw EngineFailure(graph.name, error.message.orEmpty(), error)
        }
        return convention.fromFile(outputs, sizes)
    }

    override fun close() {
        interpreter.close()
        delegate?.close()
    }
}
