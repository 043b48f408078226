package pocketdiffusion.app

import android.graphics.drawable.BitmapDrawable
import android.widget.EditText
import android.widget.ImageView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import pocketdiffusion.app.OnPhone.press
import pocketdiffusion.app.OnPhone.words

@RunWith(RobolectricTestRunner::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = [35], qualifiers = "w411dp-h860dp-xhdpi")
class DrawingTest {
    @Test
    fun `a pushed bundle is found and a picture is drawn`() {
        OnPhone.push()
        OnPhone.give(megabytes = 3000)
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        val screen = controller.get()
        OnPhone.screenshot(screen, "opening")
        OnPhone.awaitIdle()
        screen.view<EditText>(R.id.prompt).setText("red apple")
        OnPhone.screenshot(screen, "ready")
        screen.press(R.id.draw)
        OnPhone.await("a preview") { OnPhone.app.studio.work?.preview != null }
        OnPhone.screenshot(screen, "drawing")
        OnPhone.awaitIdle()
        assertEquals("", screen.words(R.id.problem_title))
        val bitmap = (screen.view<ImageView>(R.id.picture).drawable as BitmapDrawable).bitmap
        assertEquals(512, bitmap.width)
        OnPhone.screenshot(screen, "drawn")
        assertTrue(screen.words(R.id.picture_facts).startsWith("Seed 1"))
    }
}
