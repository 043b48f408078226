package pocketdiffusion.app

import android.content.Intent
import android.net.Uri
import android.view.ViewGroup
import android.widget.TextView
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import pocketdiffusion.app.OnPhone.press
import pocketdiffusion.app.OnPhone.words
import pocketdiffusion.engine.ChangedEngine
import pocketdiffusion.engine.Tensor

/** The page 'Is it the same model?'. */
@RunWith(RobolectricTestRunner::class)
class SelfTestPageTest {
    @Test
    fun `a right engine draws the original's picture, and the report can be shared`() {
        OnPhone.push()
        val screen = page()
        OnPhone.screenshot(screen, "same-model-before")
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        assertEquals("Yes. This phone draws what the original draws.", screen.words(R.id.verdict_title))
        assertTrue(screen.words(R.id.picture_words).contains("this phone is nearer than each of them"))
        val graphs = screen.view<ViewGroup>(R.id.graph_list)
        val names = (0 until graphs.childCount).map { graphs.getChildAt(it).findViewById<TextView>(R.id.name)!!.text }
        assertTrue("$names", "unet · CPU" in names)
        assertTrue(screen.words(R.id.vectors_text).endsWith("agree with the original libraries."))
        screen.press(R.id.share_report)
        val chooser = shadowOf(screen).nextStartedActivity

        @Suppress("DEPRECATION")
        val send = chooser.getParcelableExtra<Intent>(Intent.EXTRA_INTENT)!!

        @Suppress("DEPRECATION")
        val uri = send.getParcelableExtra<Uri>(Intent.EXTRA_STREAM)!!
        val provider = Robolectric.buildContentProvider(SharedFiles::class.java).create(uri.authority).get()
        val json = android.os.ParcelFileDescriptor.AutoCloseInputStream(provider.openFile(uri, "r")).use {
            it.readBytes()
        }
        val report = JSONObject(String(json))
        assertEquals(OnPhone.app.studio.opened!!.manifest.bundleId, report.getString("bundle_id"))
        assertEquals("application/json", send.type)
    }

    @Test
    fun `a wrong engine is told by its part`() {
        OnPhone.push()
        OnPhone.change { engine ->
            ChangedEngine(engine, after = { graph, values ->
                if (graph != "vae_decoder") values else values.mapValues { (_, tensor) -> darker(tensor) }
            })
        }
        val screen = page()
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        assertEquals("No. Something differs on this phone.", screen.words(R.id.verdict_title))
        assertEquals("Wrong: vae_decoder · CPU, picture", screen.words(R.id.verdict_text))
        assertTrue(screen.words(R.id.picture_words).startsWith("The two pictures differ clearly."))
        OnPhone.screenshot(screen, "same-model-wrong")
    }

    private fun darker(tensor: Tensor) = Tensor.of(tensor.shape, tensor.floats().map { it - 0.4f }.toFloatArray())

    private fun page(): SelfTestActivity {
        OnPhone.give(megabytes = 3000)
        OnPhone.open()
        return Robolectric.buildActivity(SelfTestActivity::class.java).setup().get()
    }
}
