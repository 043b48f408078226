package pocketdiffusion.app

import android.content.Intent
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import pocketdiffusion.engine.Png
import java.io.File

/** What `am start` and `adb pull` do. */
@RunWith(RobolectricTestRunner::class)
class HeadlessTest {
    private val results get() = File(OnPhone.app.getExternalFilesDir("results")!!.path)

    @Before
    fun push() {
        OnPhone.push()
        OnPhone.give(megabytes = 3000)
    }

    @Test
    fun `extras draw, and the results are files`() {
        val intent = Intent().putExtra("run", "draw").putExtra("prompt", "blue heart").putExtra("seed", 7L)
        intent.putExtra("steps", 3).putExtra("guidance", 4.5f).putExtra("sampler", "euler").putExtra("bundle", "emoji")
        OnPhone.launch(intent)
        assertEquals("running", json("draw").getString("status"))
        OnPhone.awaitIdle()
        val result = json("draw")
        assertEquals("$result", "done", result.getString("status"))
        assertTrue(result.getDouble("seconds_per_step") > 0)
        val facts = Png.readFacts(File(results, result.getString("picture")).readBytes(), "draw.png")
        assertEquals("blue heart", facts["prompt"])
        assertEquals(listOf("7", "3", "4.5", "euler"), listOf("seed", "steps", "guidance", "sampler").map { facts[it] })
    }

    @Test
    fun `extras test, and the report is a device report`() {
        OnPhone.launch(Intent().putExtra("run", "self-test"))
        OnPhone.awaitIdle()
        val result = json("self-test")
        assertTrue("$result", result.getBoolean("passed"))
        val report = JSONObject(File(results, result.getString("report")).readText())
        assertEquals("pocketdiffusion.app", report.getJSONObject("app").getString("name"))
    }

    @Test
    fun `results that cannot be written are told, and end nothing`() {
        OnPhone.launch(Intent().putExtra("run", "draw").putExtra("bundle", "nowhere"))
        OnPhone.awaitIdle()
        File(results, "draw.json").delete()
        File(results, "draw.json/x").apply { parentFile!!.mkdirs() }.writeText("x")
        OnPhone.launch(Intent().putExtra("run", "draw").putExtra("prompt", "ghost").putExtra("steps", 1))
        OnPhone.awaitIdle()
        assertEquals("ghost", OnPhone.app.studio.finished!!.facts["prompt"])
        val problem = OnPhone.app.studio.problem
        assertEquals("A file was not written", Messages(OnPhone.app.resources).of(problem!!).title)
    }

    @Test
    fun `what fails says why`() {
        val controller = OnPhone.launch(Intent().putExtra("run", "draw").putExtra("bundle", "nowhere"))
        OnPhone.awaitIdle()
        assertEquals("NotABundle", json("draw").getString("error"))
        controller.newIntent(Intent().putExtra("run", "draw").putExtra("bundle", "emoji").putExtra("steps", 4000))
        OnPhone.awaitIdle()
        val refused = json("draw")
        assertEquals("$refused", "Refusal", refused.getString("error"))
        assertTrue(refused.getString("message").contains("4000 steps"))
        File(OnPhone.push(name = "broken"), "steps/tables.bin").delete()
        controller.newIntent(Intent().putExtra("run", "self-test").putExtra("bundle", "broken"))
        OnPhone.awaitIdle()
        assertEquals("steps/tables.bin is missing", json("self-test").getJSONArray("files").getString(0))
    }

    private fun json(name: String) = JSONObject(File(results, "$name.json").readText())
}
