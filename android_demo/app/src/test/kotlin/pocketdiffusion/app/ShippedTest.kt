package pocketdiffusion.app

import android.content.res.AssetManager
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import java.io.ByteArrayOutputStream
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** A bundle that comes with the app, as an asset such as pack.py writes it. */
@RunWith(RobolectricTestRunner::class)
class ShippedTest {
    private val studio get() = OnPhone.app.studio

    /** The APK of these tests has no assets: another one, of nothing else, is put beside it. */
    @Before
    fun ship() {
        OnPhone.makeRoom()
        val bundle = OnPhone.small.toFile()
        val packed = ByteArrayOutputStream()
        ZipOutputStream(packed).use { zip ->
            for (file in bundle.walk().filter { it.isFile }) {
                zip.put(file.relativeTo(bundle).invariantSeparatorsPath, file.readBytes())
            }
        }
        val apk = File(OnPhone.app.cacheDir, "assets.apk")
        ZipOutputStream(apk.outputStream()).use { it.put("assets/bundles/came-along.zip", packed.toByteArray()) }
        add(apk)
    }

    private fun add(apk: File) {
        val add = AssetManager::class.java.getMethod("addAssetPath", String::class.java) // hidden: for tests alone
        assertEquals(true, add.invoke(OnPhone.app.assets, apk.path) != 0)
    }

    @Test
    fun `the first start unpacks it, and once it was deleted it does not come back`() {
        assertEquals(listOf("came-along"), studio.library.shipped())
        start()
        assertNull(studio.problem)
        assertEquals("came-along", studio.opened!!.place.name)
        studio.opened!!.bundle.checkAll()
        studio.delete(studio.opened!!.place)
        OnPhone.await("an empty library") { studio.opened == null && studio.library.places().isEmpty() }
        start()
        assertEquals(0, studio.library.places().size)
        assertNull(studio.opened)
    }

    @Test
    fun `of several bundles the first of ONNX is opened`() {
        File(OnPhone.app.getExternalFilesDir("bundles"), "a-folder").mkdirs()
        start()
        assertNull(studio.problem)
        assertEquals("came-along", studio.opened!!.place.name)
    }

    @Test
    fun `an update of the app brings its bundle anew, but not one that was deleted or is the person's own`() {
        identify("1".repeat(64))
        start()
        val folder = studio.opened!!.place.folder
        val same = Studio(OnPhone.app, Engines(OnPhone.app))
        File(folder, "stays").writeText("x") // until it is unpacked anew
        begin(same)
        assertEquals("the same bundle stays as it is", true, File(folder, "stays").exists())
        identify("2".repeat(64))
        val updated = Studio(OnPhone.app, Engines(OnPhone.app))
        begin(updated)
        assertNull(updated.problem)
        assertEquals("came-along", updated.opened!!.place.name)
        assertEquals("another one takes its place", false, File(folder, "stays").exists())
        updated.delete(updated.opened!!.place)
        identify("3".repeat(64))
        val third = Studio(OnPhone.app, Engines(OnPhone.app))
        begin(third)
        assertEquals("it was deleted", 0, third.library.places().size)
        OnPhone.push(OnPhone.small, name = "came-along").copyRecursively(folder)
        File(folder, "stays").writeText("x")
        begin(Studio(OnPhone.app, Engines(OnPhone.app)))
        assertEquals("the person's own stays", true, File(folder, "stays").exists())
    }

    private fun begin(studio: Studio) {
        studio.start()
        OnPhone.await("the end of the work") { studio.work == null }
    }

    /** An APK with another bundle_id beside the bundle: what is added last is found first. */
    private fun identify(id: String) {
        val apk = File(OnPhone.app.cacheDir, "id-${id.first()}.apk")
        ZipOutputStream(apk.outputStream()).use { it.put("assets/bundles/came-along.id", id.toByteArray()) }
        add(apk)
    }

    private fun start() {
        OnPhone.launch()
        OnPhone.awaitIdle()
    }

    private fun ZipOutputStream.put(name: String, data: ByteArray) {
        setLevel(1)
        putNextEntry(ZipEntry(name))
        write(data)
        closeEntry()
    }
}
