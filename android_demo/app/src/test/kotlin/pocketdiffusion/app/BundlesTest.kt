package pocketdiffusion.app

import android.content.Intent
import android.net.Uri
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.TextView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowStatFs
import pocketdiffusion.app.OnPhone.press
import pocketdiffusion.app.OnPhone.words
import pocketdiffusion.engine.Bundle
import pocketdiffusion.engine.Remote
import pocketdiffusion.engine.RemoteFile
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** The three ways of a bundle to the phone, and the page that lists them. */
@RunWith(RobolectricTestRunner::class)
class BundlesTest {
    private val studio get() = OnPhone.app.studio

    private val own get() = File(OnPhone.app.filesDir, "bundles")

    @Before
    fun makeRoom() = OnPhone.makeRoom()

    @Test
    fun `without a bundle the app says what it needs, and a zip is imported`() {
        val main = OnPhone.launch().get()
        OnPhone.awaitIdle()
        assertTrue(main.words(R.id.empty_text).startsWith("To draw, the app needs a bundle"))
        assertTrue(!main.view<View>(R.id.draw).isShown)
        OnPhone.screenshot(main, "no-bundle")
        main.press(R.id.empty_action)
        assertEquals(BundlesActivity::class.java.name, shadowOf(main).nextStartedActivity.component!!.className)
        val screen = page()
        assertEquals("There is no bundle on this phone yet.", screen.words(R.id.none))
        import(screen, zipOf(OnPhone.small.toFile(), "Emoji for me.zip"))
        assertNull(studio.problem)
        assertEquals("Emoji-for-me", studio.opened!!.place.name)
        OnPhone.await("the list") { item(screen) != null }
        val item = item(screen)!!
        assertEquals("emoji", item.findViewById<TextView>(R.id.name)!!.text)
        assertTrue(item.findViewById<View>(R.id.chosen)!!.isShown)
        studio.delete(studio.opened!!.place)
        OnPhone.await("an empty list") { screen.words(R.id.none).isNotEmpty() }
        assertNull(studio.opened)
    }

    @Test
    fun `an import tells how far it is no more often than an eye sees`() {
        val screen = page()
        var told = 0
        val listener: () -> Unit = { told++ }
        studio.listen(listener)
        val began = System.nanoTime()
        import(screen, zipOf(OnPhone.small.toFile(), "emoji.zip"))
        val seconds = (System.nanoTime() - began) / 1e9
        studio.forget(listener)
        assertNull(studio.problem)
        assertTrue("$told in $seconds s", told <= 20 + 10 * seconds)
    }

    @Test
    fun `a zip that is cut, and full storage, are told`() {
        val screen = page()
        val zip = zipOf(OnPhone.small.toFile(), "cut.zip")
        zip.writeBytes(zip.readBytes().let { it.copyOf(it.size / 2) })
        import(screen, zip)
        assertEquals("A file cannot be read", screen.words(R.id.problem_title))
        assertEquals(emptyList<String>(), own.list().orEmpty().toList())
        ShadowStatFs.registerStats(own, 1000, 1, 1)
        import(screen, zipOf(OnPhone.small.toFile(), "whole.zip"))
        assertEquals("The phone's storage is full", screen.words(R.id.problem_title))
        assertEquals(emptyList<String>(), own.list().orEmpty().toList())
        import(screen, File(OnPhone.app.cacheDir, "no.zip").apply { writeText("this is not a zip") })
        assertEquals("This is not a bundle", screen.words(R.id.problem_title))
    }

    @Test
    fun `a download that breaks off is told, and goes on from there`() {
        val screen = page()
        screen.view<EditText>(R.id.address).setText("http://example.org/emoji")
        screen.press(R.id.download)
        assertEquals("An address begins with https:// and names a server.", screen.words(R.id.address_error))
        assertNull(studio.work)
        val bundle = OnPhone.small
        var left = OnPhone.bytesOf(Bundle.open(bundle)) / 2
        val begun = ArrayList<Long>()
        val remote = Remote { path, from ->
            if (path.endsWith("model.onnx_data")) begun += from
            val stream = Files.newInputStream(bundle.resolve(path)).apply { skip(from) }
            RemoteFile(
                object : InputStream() {
                    override fun read() = throw UnsupportedOperationException()

                    override fun read(into: ByteArray, at: Int, length: Int): Int {
                        val count = stream.read(into, at, length)
                        left -= Math.max(count, 0)
                        if (left < 0) throw IOException("the connection was lost")
                        return count
                    }
                },
                from,
            )
        }
        studio.download("https://example.org/models/emoji/resolve/main", remote)
        OnPhone.awaitIdle()
        assertEquals("The download broke off", screen.words(R.id.problem_title))
        assertTrue(screen.words(R.id.problem_text), screen.words(R.id.problem_text).contains("start it again"))
        OnPhone.rest(screen)
        OnPhone.screenshot(screen, "download-broken")
        left = Long.MAX_VALUE
        begun.clear()
        studio.download("https://example.org/models/emoji/resolve/main", remote)
        OnPhone.awaitIdle()
        assertNull(studio.problem)
        assertTrue("$begun", begun.first() > 0)
        assertEquals("emoji", studio.opened!!.place.name)
        assertTrue("the proof is not loaded", !File(studio.opened!!.place.folder, "proof.json").exists())
    }

    @Test
    fun `a download takes the place of no other bundle, and one that broke off goes on or goes`() {
        val bundle = OnPhone.small
        var isBroken = false
        val remote = Remote { path, from ->
            if (isBroken && path.endsWith("model.onnx_data")) throw IOException("the connection was lost")
            RemoteFile(Files.newInputStream(bundle.resolve(path)).apply { skip(from) }, from)
        }
        fun names() = studio.library.places().map { it.name }
        for (owner in listOf("one", "two", "one")) {
            studio.download("https://example.org/$owner/emoji/resolve/main", remote)
            OnPhone.awaitIdle()
            assertNull(studio.problem)
        }
        assertEquals(listOf("emoji", "emoji-2"), names())
        isBroken = true
        studio.download("https://example.org/three/emoji/resolve/main", remote)
        OnPhone.awaitIdle()
        assertEquals(listOf("emoji", "emoji-2"), names())
        assertEquals("https://example.org/three/emoji/resolve/main", studio.library.unfinished().single().address)
        val screen = page()
        OnPhone.await("the list") { screen.view<ViewGroup>(R.id.list).childCount == 3 }
        val item = item(screen, 2)!!
        assertEquals("emoji-3", item.findViewById<TextView>(R.id.name)!!.text)
        assertEquals("Go on", item.findViewById<TextView>(R.id.use)!!.text)
        item.findViewById<View>(R.id.delete)!!.performClick()
        val dialog = org.robolectric.shadows.ShadowAlertDialog.getLatestAlertDialog()
        dialog.getButton(android.app.AlertDialog.BUTTON_POSITIVE).performClick()
        OnPhone.await("it is gone") { screen.view<ViewGroup>(R.id.list).childCount == 2 }
        val hidden = own.list()!!.filter { it.startsWith(".") }.sorted()
        assertEquals(listOf(".emoji-2.address", ".emoji.address"), hidden)
    }

    @Test
    fun `what an import left that was killed is removed at the next start`() {
        val left = File(own, ".big.importing/onnx").apply { mkdirs() }
        File(left, "model.onnx_data").writeText("half")
        OnPhone.launch()
        OnPhone.await("it is gone") { own.list()!!.isEmpty() }
    }

    @Test
    fun `the page names what is wrong with each bundle, and opens another one`() {
        OnPhone.push(OnPhone.small, name = "one")
        OnPhone.push(OnPhone.small, name = "two")
        File(OnPhone.push(OnPhone.small, name = "broken"), "onnx/unet/model.onnx").delete()
        OnPhone.launch()
        OnPhone.awaitIdle()
        assertEquals("broken", studio.library.places().first().name)
        studio.open(studio.library.find("one")!!)
        OnPhone.awaitIdle()
        val screen = page()
        OnPhone.await("the list") { screen.view<ViewGroup>(R.id.list).childCount == 3 }
        val broken = item(screen, 0)!!
        assertEquals("onnx/unet/model.onnx is missing", "${broken.findViewById<TextView>(R.id.broken_files)!!.text}")
        assertTrue(!broken.findViewById<View>(R.id.use)!!.isShown)
        OnPhone.rest(screen)
        OnPhone.screenshot(screen, "bundles")
        item(screen, 2)!!.findViewById<View>(R.id.use)!!.performClick()
        OnPhone.awaitIdle()
        assertEquals("two", studio.opened!!.place.name)
        assertTrue(screen.isFinishing)
        item(screen, 1)!!.findViewById<View>(R.id.credits)!!.performClick()
        val dialog = org.robolectric.shadows.ShadowAlertDialog.getLatestAlertDialog()
        assertTrue("${shadowOf(dialog).message}".startsWith("Licence: apache-2.0"))
    }

    private fun page(): BundlesActivity = Robolectric.buildActivity(BundlesActivity::class.java).setup().get()

    private fun item(screen: BundlesActivity, index: Int = 0): View? =
        screen.view<ViewGroup>(R.id.list).getChildAt(index)

    /** Presses the button, and answers as the system's page of files does. */
    private fun import(screen: BundlesActivity, zip: File) {
        screen.press(R.id.import_zip)
        val asked = shadowOf(screen).nextStartedActivityForResult
        assertEquals(Intent.ACTION_OPEN_DOCUMENT, asked.intent.action)
        val answer = Intent().setData(Uri.fromFile(zip))
        shadowOf(OnPhone.app.contentResolver).registerInputStreamSupplier(answer.data) { zip.inputStream() }
        shadowOf(screen).receiveResult(asked.intent, android.app.Activity.RESULT_OK, answer)
        OnPhone.awaitIdle()
    }

    private fun zipOf(bundle: File, name: String): File {
        val file = File(OnPhone.app.cacheDir, name)
        ZipOutputStream(file.outputStream().buffered()).use { zip ->
            zip.setLevel(0)
            for (one in bundle.walk().filter { it.isFile }) {
                zip.putNextEntry(ZipEntry("emoji/${one.relativeTo(bundle).invariantSeparatorsPath}"))
                one.inputStream().use { it.copyTo(zip) }
            }
        }
        return file
    }
}
