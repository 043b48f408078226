package pocketdiffusion.app

import android.graphics.Bitmap
import org.json.JSONException
import org.json.JSONObject
import pocketdiffusion.engine.Cancellation
import pocketdiffusion.engine.DeviceReport
import pocketdiffusion.engine.Png
import pocketdiffusion.engine.ProofNotInstalled
import pocketdiffusion.engine.SelfTest
import pocketdiffusion.engine.SelfTestListener

/** What a self-test found, with the pictures that the page shows. */
class Tested(
    val report: DeviceReport,
    /** The original's picture, and the one that this phone drew; null where it has none. */
    val original: Bitmap?,
    val own: Bitmap?,
    /** How near other pictures of the original are to it, in dB, by what was other; empty: not installed. */
    val controls: Map<String, Double>,
)

/** Draws on this phone what the original drew, and compares. */
class SelfTesting(private val phone: Phone, private val opened: Opened) {
    fun run(cancellation: Cancellation, listener: SelfTestListener): Tested {
        val residency = opened.residency(hasPhoto = false, phone.leftBytes(), leastMemory = false)
        opened.generator(residency, unit = null).use { generator ->
            val test = SelfTest(generator, opened.engine, phone.device())
            val report = test.run(listener = listener, cancellation = cancellation)
            opened.verdicts.remember(opened.bundle, report)
            val image = opened.manifest.picture?.image
            return Tested(
                report = report,
                original = image?.let { Bitmaps.of(Png.read(opened.bundle.read(it), it)) },
                own = test.drawn?.let(Bitmaps::of),
                controls = if (image == null) emptyMap() else readControls(image),
            )
        }
    }

    /** Of the proof, which the whole bundle has and the runtime part has not. */
    private fun readControls(image: String): Map<String, Double> = try {
        val golden = JSONObject(opened.bundle.text(PROOF)).getJSONArray("golden")
        val drawings = (0 until golden.length()).map { golden.getJSONObject(it) }
        val controls = drawings.firstOrNull { it.getString("image") == image }?.getJSONObject("controls")
        controls?.keys()?.asSequence()?.associateWith {
            controls.optDouble(it)
        }.orEmpty().filterValues { it.isFinite() }
    } catch (_: ProofNotInstalled) {
        emptyMap()
    } catch (_: JSONException) {
        emptyMap()
    }

    private companion object {
        const val PROOF = "proof.json"
    }
}
