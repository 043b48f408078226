package pocketdiffusion.app

import android.content.Context
import org.tensorflow.lite.gpu.CompatibilityList
import pocketdiffusion.engine.Bundle
import pocketdiffusion.engine.CannotRunHere
import pocketdiffusion.engine.GraphEngine
import pocketdiffusion.engine.OrtEngine
import pocketdiffusion.tflite.TfliteEngine
import java.io.File

/** The engines that this app has. */
open class Engines(private val libraries: File?, private val soc: String?) {
    constructor(context: Context) : this(
        context.applicationInfo.nativeLibraryDir?.let(::File),
        Phone(context).device().soc,
    )

    /**
     * The engine for a bundle: of several formats the first of `FORMATS`. Throws CannotRunHere where the app has no
     * engine for it.
     */
    open fun engineFor(bundle: Bundle): GraphEngine {
        val formats = bundle.manifest.formats.keys
        return when (FORMATS.firstOrNull { it in formats }) {
            ONNX -> OrtEngine(
                threads(),
                qnnLibrary = QNN.takeIf {
                    libraries?.resolve(it)?.exists() == true
                },
                soc = soc,
            )
            TFLITE -> openTflite()
            else -> throw CannotRunHere(
                "the bundle",
                "it holds ${formats.joinToString(" and ")}, and this app runs ${FORMATS.joinToString(" and ")}",
            )
        }
    }

    private fun openTflite(): GraphEngine = try {
        val hasGpu = CompatibilityList().use { it.isDelegateSupportedOnThisDevice }
        TfliteEngine(threads(), hasGpu, soc).also { it.version }
    } catch (_: LinkageError) {
        throw CannotRunHere("the bundle", "the app lacks TensorFlow Lite's library for this processor")
    }

    /** As many as a phone has fast cores, as a rule. */
    private fun threads(): Int = (Runtime.getRuntime().availableProcessors() / 2).coerceIn(1, 4)

    companion object {
        const val ONNX = "onnx"
        private const val TFLITE = "tflite"
        private const val QNN = "libQnnHtp.so"
        private val FORMATS = listOf(ONNX, TFLITE)
    }
}
