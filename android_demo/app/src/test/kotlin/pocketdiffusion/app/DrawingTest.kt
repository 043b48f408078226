package pocketdiffusion.app

import android.app.NotificationManager
import android.content.res.Configuration
import android.graphics.drawable.BitmapDrawable
import android.widget.EditText
import android.widget.ImageView
import android.widget.SeekBar
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import pocketdiffusion.app.OnPhone.press
import pocketdiffusion.app.OnPhone.words
import pocketdiffusion.engine.ChangedEngine
import pocketdiffusion.engine.Compare
import pocketdiffusion.engine.Png
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger

/** From the launcher to a picture that onnxruntime draws with a real bundle. */
@RunWith(RobolectricTestRunner::class)
class DrawingTest {
    private val studio get() = OnPhone.app.studio

    @Before
    fun push() {
        OnPhone.push()
        OnPhone.give(megabytes = 3000)
    }

    @Test
    fun `a person draws and sees the original's picture`() {
        val goOn = CountDownLatch(1)
        val calls = AtomicInteger()
        OnPhone.change { engine ->
            ChangedEngine(engine, before = {
                if (it == "unet" && calls.incrementAndGet() == CALLS_TO_WAIT) goOn.await()
            })
        }
        val screen = OnPhone.open()
        val told = studio.opened!!.manifest.picture!!
        screen.view<EditText>(R.id.prompt).setText(told.prompt)
        screen.view<EditText>(R.id.seed).setText(told.seed)
        studio.settings.steps = told.steps
        studio.settings.guidance = told.guidance
        studio.settings.sampler = told.sampler
        screen.press(R.id.draw)
        OnPhone.await("a preview") { studio.work?.preview != null && calls.get() == CALLS_TO_WAIT }
        OnPhone.screenshot(screen, "drawing")
        assertTrue(screen.words(R.id.progress_text), screen.words(R.id.progress_text).startsWith("Step "))
        goOn.countDown()
        OnPhone.awaitIdle()
        assertEquals("", screen.words(R.id.problem_title))
        val shown = (screen.view<ImageView>(R.id.picture).drawable as BitmapDrawable).bitmap
        assertEquals(studio.finished!!.bitmap, shown)
        assertEquals("Picture: ${told.prompt}", screen.view<ImageView>(R.id.picture).contentDescription)
        val (original, own) = listOf(studio.opened!!.bundle.read(told.image), studio.finished!!.png)
        val decibels = Compare.psnr(Png.read(original, "original"), Png.read(own, "own"))
        assertTrue("$decibels dB", decibels >= 60)
        assertEquals(told.prompt, Png.readFacts(own, "own")["prompt"])
    }

    @Test
    fun `a rotation loses neither the drawing nor what was typed`() {
        val goOn = CountDownLatch(1)
        val calls = AtomicInteger()
        OnPhone.change { engine ->
            ChangedEngine(engine, before = { if (it == "unet" && calls.incrementAndGet() == 5) goOn.await() })
        }
        val controller = OnPhone.launch()
        OnPhone.awaitIdle()
        val before = controller.get()
        before.view<EditText>(R.id.prompt).setText("penguin")
        before.view<EditText>(R.id.negative).setText("snow")
        studio.settings.steps = STEPS
        before.press(R.id.draw)
        OnPhone.await("a step") { (studio.work?.done ?: 0) > 0 }
        val land = Configuration(before.resources.configuration).apply {
            orientation = Configuration.ORIENTATION_LANDSCAPE
            screenWidthDp = 860
            screenHeightDp = 411
        }
        controller.configurationChange(land)
        val after = controller.get()
        assertTrue(after !== before)
        assertNotNull(studio.work)
        assertTrue(after.words(R.id.progress_text).startsWith("Step "))
        goOn.countDown()
        OnPhone.awaitIdle()
        assertEquals("penguin", after.words(R.id.prompt))
        assertEquals("snow", after.words(R.id.negative))
        assertEquals(STEPS - 1, after.view<SeekBar>(R.id.steps).progress)
        assertEquals("penguin", studio.finished!!.facts["prompt"])
        assertEquals("snow", studio.finished!!.facts["negative_prompt"])
        assertEquals("${studio.finished!!.facts["steps"]}", "$STEPS")
        assertTrue(after.words(R.id.picture_facts).startsWith("Seed "))
    }

    @Test
    fun `cancel ends a drawing within a step`() {
        val screen = OnPhone.open()
        studio.settings.steps = 50
        screen.press(R.id.draw)
        OnPhone.await("a step") { (studio.work?.done ?: 0) > 0 }
        val work = studio.work!!
        val began = System.nanoTime()
        screen.press(R.id.cancel)
        val done = work.done
        OnPhone.awaitIdle()
        val seconds = (System.nanoTime() - began) / 1e9
        assertTrue("${work.done} after $done", work.done <= done + 2) // what was done before the wish, and told after
        assertTrue("$seconds s", seconds < 2)
        assertNull(studio.finished)
        assertNull(studio.problem)
        assertTrue(screen.view<android.view.View>(R.id.draw).isShown)
    }

    @Test
    fun `a new start shows the last picture`() {
        OnPhone.open()
        studio.draw(Wish("ghost", seed = "3", steps = 2))
        OnPhone.awaitIdle()
        val again = Studio(OnPhone.app, Engines(OnPhone.app))
        assertEquals("ghost", again.finished!!.facts["prompt"])
        assertNull(again.interrupted)
        assertEquals("ghost-3.png", again.finished!!.name)
    }

    @Test
    fun `the end of a prompt that has no room is told`() {
        val screen = OnPhone.open()
        studio.draw(Wish("apple ".repeat(75) + "banana", seed = "1", steps = 1))
        OnPhone.awaitIdle()
        assertTrue(screen.words(R.id.notice_text), screen.words(R.id.notice_text).contains("“banana” was left out"))
    }

    @Test
    fun `each picture has a new seed unless it is kept`() {
        val screen = OnPhone.open()
        studio.settings.steps = 1
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        assertEquals("1", studio.finished!!.facts["seed"])
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        val second = studio.finished!!.facts["seed"]
        assertTrue(second != "1")
        assertEquals(second, screen.words(R.id.seed))
        screen.view<android.widget.Switch>(R.id.keep_seed).isChecked = true
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        assertEquals(second, studio.finished!!.facts["seed"])
        screen.view<EditText>(R.id.seed).setText("1.5")
        screen.press(R.id.draw)
        assertNull(studio.work)
        assertEquals("A seed is an integer.", screen.view<EditText>(R.id.seed).error)
    }

    @Test
    fun `a service that is just started does not stop before it is in the foreground`() {
        OnPhone.open()
        val service = Robolectric.buildService(WorkService::class.java).create()
        studio.dismiss() // tells everyone, and there is no work
        assertTrue(!shadowOf(service.get()).isStoppedBySelf)
        service.startCommand(0, 1)
        assertTrue(shadowOf(service.get()).isStoppedBySelf)
        service.destroy()
    }

    @Test
    fun `a seed that was typed is drawn, and a new one comes after it`() {
        val screen = OnPhone.open()
        studio.settings.steps = 1
        val seeds = listOf("42", "43", "43").map { typed ->
            screen.view<EditText>(R.id.seed).setText(typed)
            screen.press(R.id.draw)
            OnPhone.awaitIdle()
            studio.finished!!.facts["seed"]
        }
        assertEquals(listOf("42", "43", "43"), seeds)
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        assertTrue(studio.finished!!.facts["seed"] != "43")
    }

    @Test
    fun `what a step takes is counted when it was done`() {
        OnPhone.open()
        val told = LinkedHashSet<Double?>()
        val listener: () -> Unit = { told += studio.work?.secondsPerStep }
        studio.listen(listener)
        studio.draw(Wish("ghost", seed = "1", steps = 8))
        Thread.sleep(SECONDS_TO_DRAW * 1000) // the main thread is busy with something else
        OnPhone.awaitIdle()
        studio.forget(listener)
        assertTrue("$told", told.filterNotNull().size > 1)
    }

    @Test
    fun `the service stays in the foreground while it is drawn`() {
        val screen = OnPhone.open()
        studio.settings.steps = 50
        screen.press(R.id.draw)
        val intent = generateSequence { shadowOf(OnPhone.app).nextStartedService }.last()
        assertEquals(WorkService::class.java.name, intent.component!!.className)
        val service = Robolectric.buildService(WorkService::class.java, intent).create().startCommand(0, 1)
        OnPhone.await("a step") { (studio.work?.done ?: 0) > 0 }
        assertEquals(1, shadowOf(service.get()).lastForegroundNotificationId)
        val manager = OnPhone.app.getSystemService(NotificationManager::class.java)!!
        val notification = shadowOf(manager).getNotification(1)
        assertEquals("Drawing", notification.extras.getString("android.title"))
        assertTrue(notification.actions.single().title == "Cancel")
        service.get().onStartCommand(shadowOf(notification.actions.single().actionIntent).savedIntent, 0, 2)
        OnPhone.awaitIdle()
        assertNull(studio.finished)
        assertTrue(shadowOf(service.get()).isStoppedBySelf)
        assertTrue(shadowOf(service.get()).isForegroundStopped)
        service.destroy()
    }

    private companion object {
        const val STEPS = 12
        const val SECONDS_TO_DRAW = 3L
        const val CALLS_TO_WAIT = 14 // two for each step
    }
}
