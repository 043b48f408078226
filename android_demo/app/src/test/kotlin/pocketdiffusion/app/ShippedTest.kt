package pocketdiffusion.app

import org.junit.AfterClass
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.BeforeClass
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** A bundle that comes with the app, as an asset such as pack.py writes it. */
@RunWith(RobolectricTestRunner::class)
class ShippedTest {
    private val studio get() = OnPhone.app.studio

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

    private fun start() {
        OnPhone.launch()
        OnPhone.awaitIdle()
    }

    companion object {
        /** What test_config.properties calls the app's assets; in other tests there are none. */
        private val assets = File("target/assets/bundles")

        @BeforeClass
        @JvmStatic
        fun pack() {
            assets.mkdirs()
            val bundle = File(OnPhone.bundle().toUri())
            ZipOutputStream(File(assets, "came-along.zip").outputStream().buffered()).use { zip ->
                zip.setLevel(0)
                for (file in bundle.walk().filter { it.isFile }) {
                    zip.putNextEntry(ZipEntry(file.relativeTo(bundle).invariantSeparatorsPath))
                    file.inputStream().use { it.copyTo(zip) }
                }
            }
        }

        @AfterClass
        @JvmStatic
        fun remove() {
            assets.parentFile!!.deleteRecursively()
        }
    }
}
