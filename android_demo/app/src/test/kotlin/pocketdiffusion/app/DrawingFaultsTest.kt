package pocketdiffusion.app

import android.app.ActivityManager
import android.app.ApplicationExitInfo
import android.net.Uri
import android.view.View
import kotlinx.serialization.json.JsonPrimitive
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowActivityManager.ApplicationExitInfoBuilder
import pocketdiffusion.app.OnPhone.press
import pocketdiffusion.app.OnPhone.words
import pocketdiffusion.engine.ChangedEngine
import pocketdiffusion.engine.EngineFailure
import pocketdiffusion.engine.Forgery
import pocketdiffusion.engine.NotFinite
import pocketdiffusion.engine.Residency
import java.io.File

/** What a person sees where a drawing goes wrong, and that the app goes on. */
@RunWith(RobolectricTestRunner::class)
class DrawingFaultsTest {
    private val studio get() = OnPhone.app.studio
    private val mark get() = File(OnPhone.app.filesDir, "drawing.json")

    @Before
    fun push() {
        OnPhone.give(megabytes = 3000)
    }

    @Test
    fun `an engine that fails in the midst of a drawing is told, and the next drawing works`() {
        OnPhone.push()
        var fail: (() -> Nothing)? = null
        var calls = 0
        OnPhone.change { engine ->
            ChangedEngine(engine, before = { if (it == "unet" && ++calls % 4 == 0) fail?.invoke() })
        }
        val screen = OnPhone.open()
        fun shows(title: String, failure: () -> Nothing) {
            fail = failure
            studio.draw(Wish("red apple", seed = "1", steps = 4))
            OnPhone.awaitIdle()
            assertEquals(title, screen.words(R.id.problem_title))
            assertNull(studio.finished)
            assertFalse(mark.exists())
        }
        shows("The picture broke while it was drawn") { throw NotFinite("unet", "out_sample") }
        assertTrue(screen.words(R.id.problem_text).startsWith("unet gave values in out_sample that are not numbers"))
        OnPhone.screenshot(screen, "error")
        shows("The memory ran out") { throw OutOfMemoryError() }
        shows("A part of the model cannot be run") { throw EngineFailure("unet", "no kernel for Conv") }
        assertEquals("no kernel for Conv", screen.words(R.id.problem_detail))
        shows("Something went wrong") { throw IllegalStateException("a mistake of ours") }
        fail = null
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        assertNull(studio.problem)
        assertFalse(screen.view<View>(R.id.problem).isShown)
        assertEquals("50", studio.finished!!.facts["steps"])
    }

    @Test
    fun `too little memory is told before anything is drawn`() {
        OnPhone.push()
        val screen = OnPhone.open()
        OnPhone.give(megabytes = 60)
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        assertEquals("Not enough memory", screen.words(R.id.problem_title))
        assertTrue(screen.words(R.id.problem_text), screen.words(R.id.problem_text).contains("60 MB are free"))
        assertTrue(screen.words(R.id.phone_memory).contains("only 60 MB are free"))
    }

    @Test
    fun `one graph at a time is opened where those of a step do not fit, and it is told`() {
        OnPhone.push(OnPhone.split)
        val engines = ArrayList<ChangedEngine>()
        OnPhone.change { engine -> ChangedEngine(engine).also { engines += it } }
        val screen = OnPhone.open()
        val (usual, least) = listOf(Residency.STAGE, Residency.CALL).map {
            studio.opened!!.peakBytes(hasPhoto = false, it)!! shr 20
        }
        assertTrue("$least and $usual MB", least + 1 < usual)
        fun draw(megabytes: Long): Finished {
            OnPhone.give(megabytes)
            engines.single().mostOpen = 0
            studio.draw(Wish("red apple", seed = "1", steps = 2))
            OnPhone.awaitIdle()
            return studio.finished!!
        }
        val first = draw(usual + 1)
        assertTrue(engines.single().mostOpen > 1)
        assertFalse("one part of the model" in screen.words(R.id.phone_memory))
        assertEquals("", screen.words(R.id.notice_text))
        val second = draw(usual)
        assertEquals(1, engines.single().mostOpen)
        assertTrue("with one part of the model at a time" in screen.words(R.id.phone_memory))
        assertTrue(screen.words(R.id.notice_text), screen.words(R.id.notice_text).startsWith("The memory had no room"))
        assertArrayEquals(first.png, second.png)
        assertTrue(studio.opened!!.canSaveMemory(hasPhoto = false))
        draw(least)
        assertEquals("Not enough memory", screen.words(R.id.problem_title))
    }

    @Test
    fun `a unit that is known to be bad is not offered, and one that refuses gives way to the CPU`() {
        val folder = OnPhone.push()
        Forgery.change(folder.toPath(), "pipeline/onnx.json", "graphs", "unet", "units") {
            kotlinx.serialization.json.JsonObject(
                mapOf(
                    "gpu" to kotlinx.serialization.json.JsonObject(
                        mapOf("status" to JsonPrimitive("bad"), "note" to JsonPrimitive("Its sums are of float16.")),
                    ),
                ),
            )
        }
        OnPhone.change { ChangedEngine(it, units = listOf("cpu", "gpu")) }
        val screen = OnPhone.open()
        assertEquals(listOf("cpu"), studio.opened!!.units)
        val note = "Not used: the graphics unit (GPU) for unet, which is known to be wrong there. " +
            "Its sums are of float16."
        assertEquals(note, screen.words(R.id.unit_note))
        studio.draw(Wish("ghost", seed = "1", steps = 1, unit = "gpu"))
        OnPhone.awaitIdle()
        val notice = "unet ran on the processor (CPU) instead: The model is wrong on this unit"
        assertTrue(screen.words(R.id.notice_text), screen.words(R.id.notice_text).contains(notice))
    }

    @Test
    fun `a unit of which nothing is known draws once the self-test found it right`() {
        val folder = OnPhone.push()
        Forgery.change(folder.toPath(), "pipeline/onnx.json", "graphs", "unet", "compute_unit") { JsonPrimitive("gpu") }
        OnPhone.change { ChangedEngine(it, units = listOf("cpu", "gpu")) }
        val screen = OnPhone.open()
        val unet = studio.opened!!.pipeline.graphs.getValue("unet")
        fun unit() = studio.opened!!.generator(pocketdiffusion.engine.Residency.STAGE, unit = null).unitOf(unet)
        assertEquals("cpu", unit())
        assertTrue(screen.words(R.id.unit_note).startsWith("Not used yet: the graphics unit (GPU)."))
        studio.test()
        OnPhone.awaitIdle()
        assertTrue(studio.tested!!.report.passed)
        assertEquals("gpu", unit())
        assertEquals("", screen.words(R.id.unit_note))
    }

    @Test
    fun `a process that was ended while it drew is told at the next start`() {
        OnPhone.push()
        Interruption(mark).begin(Wish("octopus", seed = "9", steps = 3))
        val manager = OnPhone.app.getSystemService(ActivityManager::class.java)!!
        val exit = ApplicationExitInfoBuilder.newBuilder()
            .setReason(ApplicationExitInfo.REASON_LOW_MEMORY)
            .build()
        shadowOf(manager).addApplicationExitInfo(exit)
        val screen = OnPhone.open()
        assertEquals(
            "The last drawing was ended by the system, because memory ran out.",
            screen.words(R.id.notice_text),
        )
        assertFalse(mark.exists())
        assertFalse("each stage has one graph", studio.opened!!.canSaveMemory(hasPhoto = false))
        assertEquals("Draw it again", screen.words(R.id.notice_action))
        OnPhone.screenshot(screen, "interrupted")
        screen.press(R.id.notice_action)
        OnPhone.awaitIdle()
        assertEquals("octopus", studio.finished!!.facts["prompt"])
        assertEquals("3", studio.finished!!.facts["steps"])
        assertEquals("", screen.words(R.id.notice_text))
    }

    @Test
    fun `the system's reason for the end of a drawing is told, and none is made up`() {
        OnPhone.push()
        val manager = OnPhone.app.getSystemService(ActivityManager::class.java)!!
        val told = listOf(
            null to "The last drawing was not finished: the app was ended while it drew.",
            ApplicationExitInfo.REASON_CRASH_NATIVE to
                "The last drawing was not finished: the app crashed while it drew.",
            ApplicationExitInfo.REASON_USER_REQUESTED to
                "The last drawing was not finished: the app was closed while it drew.",
            ApplicationExitInfo.REASON_ANR to "The last drawing was ended by the system.",
        )
        for ((reason, words) in told) {
            if (reason != null) {
                val exit = ApplicationExitInfoBuilder.newBuilder().setReason(reason).build()
                shadowOf(manager).addApplicationExitInfo(exit)
            }
            Interruption(mark).begin(Wish("octopus", seed = "9", steps = 3))
            val again = Studio(OnPhone.app, Engines(OnPhone.app))
            assertEquals("octopus", again.interrupted!!.prompt)
            assertEquals(words, OnPhone.app.getString(MainActivity.wordsOf(again.ended)))
        }
        assertFalse(Wish("octopus", seed = "9", leastMemory = true).request(null).oneBatch)
        assertTrue(Wish("octopus", seed = "9").request(null).oneBatch)
    }

    @Test
    fun `full storage loses no picture, and is told`() {
        OnPhone.push()
        val taken = listOf("last.png", "drawing.json").map { File(OnPhone.app.filesDir, it) }
        for (file in taken) File(file, "x").apply { parentFile!!.mkdirs() }.writeText("x") // none can be written here
        val screen = OnPhone.open()
        studio.draw(Wish("ghost", seed = "1", steps = 1))
        OnPhone.awaitIdle()
        assertNull(studio.problem)
        assertEquals("ghost", studio.finished!!.facts["prompt"])
        val notice = screen.words(R.id.notice_text)
        assertTrue(notice, notice.contains("save or share this picture"))
        val cache = OnPhone.app.cacheDir
        cache.deleteRecursively()
        cache.writeText("no folder")
        screen.press(R.id.share)
        assertEquals("A file was not written", screen.words(R.id.problem_title))
        for (file in taken) file.deleteRecursively()
        studio.draw(Wish("ghost", seed = "2", steps = 1))
        OnPhone.awaitIdle()
        assertTrue(taken.first().isFile)
        assertEquals("", screen.words(R.id.notice_text))
    }

    @Test
    fun `a photo that is gone is told`() {
        OnPhone.push()
        val screen = OnPhone.open()
        studio.draw(Wish("ghost", seed = "1", steps = 4, photo = Uri.fromFile(File("/nowhere.jpg"))))
        OnPhone.awaitIdle()
        assertEquals("The photo cannot be read", screen.words(R.id.problem_title))
        screen.press(R.id.problem_close)
        assertFalse(screen.view<View>(R.id.problem).isShown)
    }
}
