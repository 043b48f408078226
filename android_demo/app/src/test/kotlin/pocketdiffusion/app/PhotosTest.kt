package pocketdiffusion.app

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Color
import android.net.Uri
import android.view.View
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowToast
import pocketdiffusion.app.OnPhone.press
import pocketdiffusion.app.OnPhone.scrollTo
import pocketdiffusion.app.OnPhone.words
import pocketdiffusion.engine.Png
import java.io.ByteArrayOutputStream
import java.io.File

/** Photos that come in, and pictures that go out. */
@RunWith(RobolectricTestRunner::class)
class PhotosTest {
    private val studio get() = OnPhone.app.studio

    @Test
    fun `a photo is read upright, its middle in the bundle's proportions`() {
        val photo = File(OnPhone.app.cacheDir, "photo.jpg")
        photo.writeBytes(turned(jpeg(width = 60, height = 40), orientation = 6)) // the right side is below
        val picture = Photos.read(OnPhone.app.contentResolver, Uri.fromFile(photo), 64, 64)
        assertEquals(listOf(40, 40), listOf(picture.width, picture.height))
        fun colour(x: Int, y: Int) = (0..2).map { (picture.rgb[3 * (40 * y + x) + it].toInt() and 0xff) / 128 }
        assertEquals("left of the photo is above", listOf(1, 0, 0), colour(20, 5))
        assertEquals("right of the photo is below", listOf(0, 0, 1), colour(20, 35))
    }

    @Test
    fun `a picture starts from a photo, is saved to the gallery and shared with its facts`() {
        OnPhone.push()
        OnPhone.give(megabytes = 3000)
        val screen = OnPhone.open()
        val photo = File(OnPhone.app.cacheDir, "photo.png").apply {
            writeBytes(studio.opened!!.bundle.read("golden/0.png"))
        }
        screen.press(R.id.photo_choose)
        val asked = shadowOf(screen).nextStartedActivityForResult
        shadowOf(
            screen,
        ).receiveResult(asked.intent, android.app.Activity.RESULT_OK, Intent().setData(Uri.fromFile(photo)))
        assertTrue(screen.view<View>(R.id.strength).isShown)
        screen.scrollTo(R.id.strength)
        OnPhone.screenshot(screen, "photo")
        studio.settings.steps = 5
        studio.settings.strength = 0.6
        screen.press(R.id.draw)
        OnPhone.awaitIdle()
        assertEquals("", screen.words(R.id.problem_title))
        val finished = studio.finished!!
        assertEquals("0.6", finished.facts["strength"])
        screen.press(R.id.save)
        assertEquals("Saved to the gallery", ShadowToast.getTextOfLatestToast())
        val saved = Gallery(screen).save(finished.png, finished.name)
        val bytes = OnPhone.app.contentResolver.openInputStream(saved)
        screen.press(R.id.share)
        assertEquals(Intent.ACTION_CHOOSER, shadowOf(screen).nextStartedActivity.action)
        val shared = File(OnPhone.app.cacheDir, "shared").listFiles()!!.single()
        assertEquals(finished.facts, Png.readFacts(shared.readBytes(), "shared"))
        screen.press(R.id.photo_remove)
        assertTrue(!screen.view<View>(R.id.strength).isShown)
        bytes?.close()
    }

    @Test
    fun `a transparent photo is read over white`() {
        val bitmap = Bitmap.createBitmap(60, 40, Bitmap.Config.ARGB_8888)
        for (y in 0 until 40) for (x in 0 until 60) bitmap.setPixel(x, y, Color.argb(128, 255, 0, 0))
        val photo = File(OnPhone.app.cacheDir, "transparent.png")
        photo.outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
        val picture = Photos.read(OnPhone.app.contentResolver, Uri.fromFile(photo), 64, 64)
        assertEquals(listOf(40, 40), listOf(picture.width, picture.height))
        assertEquals(listOf(255, 127, 127), (0..2).map { picture.rgb[it].toInt() and 0xff })
    }

    @Test
    fun `photos lie in their files in eight ways`() {
        val jpeg = jpeg(width = 64, height = 32)
        val photo = File(OnPhone.app.cacheDir, "photo.jpg")
        val ways = (1..8).map { orientation ->
            photo.writeBytes(turned(jpeg, orientation))
            val height = if (orientation < 5) 32 else 128
            val picture = Photos.read(OnPhone.app.contentResolver, Uri.fromFile(photo), 64, height)
            fun isRed(x: Int, y: Int) = picture.rgb[3 * (picture.width * y + x)].toInt() and 0xff > 128
            val (right, below) = picture.width - 4 to picture.height - 4
            listOf(isRed(4, 4), isRed(right, 4), isRed(4, below)).joinToString("") { if (it) "r" else "b" }
        }
        // of each: above left, above right, below left; red is where the file's left is
        assertEquals(listOf("rbr", "brb", "brb", "rbr", "rrb", "rrb", "bbr", "bbr"), ways)
    }

    @Test
    fun `a large photo is shown small, and one that is gone is forgotten`() {
        OnPhone.push()
        OnPhone.give(megabytes = 3000)
        val photo = File(OnPhone.app.cacheDir, "large.jpg").apply { writeBytes(jpeg(width = 3000, height = 2000)) }
        studio.settings.photo = Uri.fromFile(photo)
        studio.settings.bundle = "emoji"
        val screen = OnPhone.open()
        val view = screen.view<android.widget.ImageView>(R.id.photo_view)
        fun shownNow(): Bitmap? = (view.drawable as? android.graphics.drawable.BitmapDrawable)?.bitmap
        OnPhone.await("the photo") { shownNow() != null }
        val shown = shownNow()!!
        assertTrue("${shown.width} x ${shown.height}", shown.width * shown.height <= 500_000)
        assertTrue(view.isShown)
        val failures = listOf<() -> Nothing>(
            { throw SecurityException("no permission") },
            { throw IllegalStateException("a mistake of the other app") },
        )
        for ((i, failure) in failures.withIndex()) {
            val lent = Uri.parse("content://other.app/$i")
            shadowOf(OnPhone.app.contentResolver).registerInputStreamSupplier(lent) { failure() }
            studio.settings.photo = lent
            val next = OnPhone.launch().get()
            OnPhone.await("the end of it") { studio.settings.photo == null }
            OnPhone.awaitIdle()
            assertEquals("The photo cannot be read", next.words(R.id.problem_title))
            assertTrue(!next.view<View>(R.id.photo_view).isShown)
            studio.dismiss()
        }
    }

    @Test
    fun `Android 8 and 9 keep two pictures of one name`() {
        val api = android.os.Build.VERSION.SDK_INT
        fun pretend(api: Int) = org.robolectric.util.ReflectionHelpers
            .setStaticField(android.os.Build.VERSION::class.java, "SDK_INT", api)
        pretend(28)
        try {
            saveTwice()
        } finally {
            pretend(api)
        }
    }

    private fun saveTwice() {
        val gallery = org.robolectric.Robolectric.buildContentProvider(OldGallery::class.java).create("media").get()
        Gallery(OnPhone.app).save(byteArrayOf(1), "ghost-1.png")
        val first = File(gallery.paths.single())
        first.writeBytes(byteArrayOf(1))
        Gallery(OnPhone.app).save(byteArrayOf(2), "ghost-1.png")
        assertEquals(listOf("ghost-1.png", "ghost-1-2.png"), gallery.paths.map { File(it).name })
        assertEquals(0, gallery.deleted)
        gallery.isBroken = true
        val error = org.junit.Assert.assertThrows(NotSaved::class.java) {
            Gallery(OnPhone.app).save(byteArrayOf(3), "ghost-1.png")
        }
        assertTrue(error.cause is IllegalStateException)
        assertEquals("the row of no picture goes", 1, gallery.deleted)
    }

    class OldGallery : ContentProvider() {
        val paths = ArrayList<String>()
        var isBroken = false
        var deleted = 0

        override fun onCreate() = true

        override fun insert(uri: Uri, values: ContentValues?): Uri {
            paths += values!!.getAsString("_data")
            val row = uri.buildUpon().appendPath("${paths.size}").build()
            val out = object : ByteArrayOutputStream() {
                override fun write(bytes: ByteArray) = if (isBroken) error("the gallery broke") else Unit
            }
            shadowOf(OnPhone.app.contentResolver).registerOutputStream(row, out)
            return row
        }

        override fun query(uri: Uri, a: Array<String>?, b: String?, c: Array<String>?, d: String?) = null

        override fun getType(uri: Uri): String? = null

        override fun update(uri: Uri, values: ContentValues?, a: String?, b: Array<String>?) = 0

        override fun delete(uri: Uri, a: String?, b: Array<String>?) = 1.also { deleted++ }
    }

    @Test
    fun `a gallery that takes nothing is told`() {
        OnPhone.push()
        OnPhone.give(megabytes = 3000)
        val screen = OnPhone.open()
        studio.draw(Wish("ghost", seed = "1", steps = 1))
        OnPhone.awaitIdle()
        org.robolectric.Robolectric.buildContentProvider(FullGallery::class.java).create("media")
        screen.press(R.id.save)
        assertEquals("The picture was not saved", screen.words(R.id.problem_title))
    }

    class FullGallery : ContentProvider() {
        override fun onCreate() = true

        override fun insert(uri: Uri, values: ContentValues?): Uri? = null

        override fun query(uri: Uri, a: Array<String>?, b: String?, c: Array<String>?, d: String?) = null

        override fun getType(uri: Uri): String? = null

        override fun update(uri: Uri, values: ContentValues?, a: String?, b: Array<String>?) = 0

        override fun delete(uri: Uri, a: String?, b: Array<String>?) = 0
    }

    /** Red on the left, blue on the right. */
    private fun jpeg(width: Int, height: Int): ByteArray {
        val bitmap = Bitmap.createBitmap(width, height, Bitmap.Config.ARGB_8888)
        for (y in 0 until height) {
            for (x in 0 until width) {
                bitmap.setPixel(
                    x,
                    y,
                    if (x <
                        width / 2
                    ) {
                        Color.RED
                    } else {
                        Color.BLUE
                    },
                )
            }
        }
        return ByteArrayOutputStream().also { bitmap.compress(Bitmap.CompressFormat.JPEG, 95, it) }.toByteArray()
    }

    /** The JPEG with an orientation in a segment of EXIF behind its first marker. */
    private fun turned(jpeg: ByteArray, orientation: Int): ByteArray {
        val tiff = byteArrayOf(
            'M'.code.toByte(), 'M'.code.toByte(), 0, 42, 0, 0, 0, 8, // big endian; the directory is at 8
            0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation.toByte(), 0, 0, 0, 0, 0, 0,
        )
        val body = "Exif".toByteArray() + byteArrayOf(0, 0) + tiff
        val size = body.size + 2
        val segment = byteArrayOf(-1, 0xe1.toByte(), (size shr 8).toByte(), size.toByte()) + body
        return jpeg.copyOf(2) + segment + jpeg.copyOfRange(2, jpeg.size)
    }
}
