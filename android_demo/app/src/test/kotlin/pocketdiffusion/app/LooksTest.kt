package pocketdiffusion.app

import android.app.Activity
import android.content.res.Resources
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.ImageView
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.TextView
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import pocketdiffusion.app.OnPhone.scrollTo
import java.io.File

/**
 * Every screen in light and dark, with large text, in landscape and in Chinese: what is touched is 48 dp large and has
 * a label, no text is cut. The pictures of the README are made here.
 */
@RunWith(RobolectricTestRunner::class)
class LooksTest {
    private val studio get() = OnPhone.app.studio
    private val problems = ArrayList<String>()

    @Test
    fun `every screen in every dress`() {
        OnPhone.push(name = "emoji")
        File(OnPhone.push(name = "emoji-copy"), "onnx/unet/model.onnx").delete()
        OnPhone.give(megabytes = 3000)
        studio.settings.bundle = "emoji"
        studio.settings.prompt = "red apple"
        OnPhone.open()
        studio.draw(Wish("red apple", seed = "1", steps = 20))
        OnPhone.awaitIdle()
        studio.test()
        OnPhone.awaitIdle()
        for ((name, qualifiers) in DRESSES) {
            RuntimeEnvironment.setQualifiers(BASE)
            RuntimeEnvironment.setFontScale(if (name == "large") 2f else 1f)
            RuntimeEnvironment.setQualifiers(qualifiers)
            val main = OnPhone.launch().get()
            look(main, "draw-$name", "controls-$name" to R.id.keep_seed, "phone-$name" to R.id.phone_target)
            val bundles = Robolectric.buildActivity(BundlesActivity::class.java).setup().get()
            OnPhone.await("the list") { bundles.view<ViewGroup>(R.id.list).childCount == 2 }
            look(bundles, "bundles-$name", "add-$name" to R.id.adb_command)
            val same = Robolectric.buildActivity(SelfTestActivity::class.java).setup().get()
            look(same, "same-model-$name", "parts-$name" to R.id.share_report)
        }
        assertEquals("", problems.joinToString("\n"))
    }

    private fun look(screen: Activity, name: String, vararg parts: Pair<String, Int>) {
        OnPhone.rest(screen)
        OnPhone.screenshot(screen, name)
        check(screen, screen.window.decorView, name)
        for ((part, id) in parts) {
            screen.scrollTo(id)
            OnPhone.screenshot(screen, part)
        }
        screen.finish()
    }

    private fun check(screen: Activity, view: View, name: String) {
        if (view.visibility != View.VISIBLE) return
        if (view is ViewGroup && view !is Spinner) {
            for (i in 0 until view.childCount) check(screen, view.getChildAt(i), name)
        }
        val called = "$name: ${nameOf(screen, view)}"
        val isTouched = view.isClickable && view.isEnabled || view is SeekBar
        if (isTouched) {
            val dp = screen.resources.displayMetrics.density
            if (view.width < 48 * dp || view.height < 48 * dp) {
                problems += "$called is ${view.width / dp} x ${view.height / dp} dp"
            }
            if (labelOf(screen, view).isBlank()) problems += "$called has no label"
        }
        if (view is ImageView &&
            !isTouched &&
            view.isImportantForAccessibility &&
            view.contentDescription.isNullOrEmpty()
        ) {
            problems += "$called is a picture without words"
        }
        if (view is TextView && view.layout != null && view !is EditText) {
            val room = view.height - view.totalPaddingTop - view.totalPaddingBottom
            if (view.layout.height > room + 1) problems += "$called is cut: ${view.text}"
            val lines = (0 until view.lineCount).any { view.layout.getEllipsisCount(it) > 0 }
            if (lines) problems += "$called is shortened: ${view.text}"
        }
    }

    private fun nameOf(screen: Activity, view: View): String = try {
        screen.resources.getResourceEntryName(view.id)
    } catch (_: Resources.NotFoundException) {
        view.javaClass.simpleName
    }

    /** What a screen reader says: the view's own words, those of the label that points to it, or those inside. */
    private fun labelOf(screen: Activity, view: View): String {
        val own = listOfNotNull(view.contentDescription, (view as? TextView)?.text, (view as? TextView)?.hint)
        val labels = texts(screen.window.decorView).filter { it.labelFor == view.id && view.id > 0 }.map { it.text }
        val inside = if (view is ViewGroup) texts(view).map { it.text } else emptyList()
        return (own + labels + inside).joinToString(" ")
    }

    private fun texts(view: View): List<TextView> = when (view) {
        is TextView -> listOf(view)
        is ViewGroup -> (0 until view.childCount).flatMap { texts(view.getChildAt(it)) }
        else -> emptyList()
    }

    private companion object {
        const val BASE = "en-rUS-w411dp-h860dp-port-notnight-xhdpi"
        val DRESSES = listOf(
            "light" to "+notnight",
            "dark" to "+night",
            "large" to "+notnight",
            "land" to "+w860dp-h411dp-land",
            "chinese" to "+zh-rCN",
        )
    }
}
