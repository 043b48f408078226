package pocketdiffusion.app

import android.content.pm.PackageManager
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import java.io.File

/** What the app asks of the phone, and what it lets others do. */
@RunWith(RobolectricTestRunner::class)
class PackageTest {
    private val all = PackageManager.GET_PERMISSIONS or PackageManager.GET_PROVIDERS or
        PackageManager.GET_ACTIVITIES or PackageManager.GET_SERVICES
    private val info = OnPhone.app.packageManager.getPackageInfo(OnPhone.app.packageName, all)

    @Test
    fun `it asks for no more than it needs`() {
        val asked = info.requestedPermissions!!.map { it.removePrefix("android.permission.") }.toSet()
        val known = setOf(
            "INTERNET", // the download that the person asks for
            "FOREGROUND_SERVICE",
            "FOREGROUND_SERVICE_DATA_SYNC",
            "POST_NOTIFICATIONS",
            "WAKE_LOCK",
            "WRITE_EXTERNAL_STORAGE", // the gallery of Android 8 and 9
            "READ_EXTERNAL_STORAGE", // which that brings along
        )
        assertEquals(emptySet<String>(), asked - known)
    }

    @Test
    fun `nothing but the launcher's screen is open to other apps, and nothing is sent by itself`() {
        val exported = listOf(*info.activities!!, *info.services!!, *info.providers!!).filter {
            it.exported
        }.map { it.name }
        assertEquals(listOf(MainActivity::class.java.name), exported)
        assertEquals(listOf(SharedFiles::class.java.name), info.providers!!.map { it.name })
        assertFalse(
            "telemetry" in
                File("target/android/AndroidManifest.xml").readText().lowercase().substringAfter("<application"),
        )
    }
}
