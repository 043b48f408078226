package pocketdiffusion.app

import android.app.ActivityManager
import android.app.ApplicationExitInfo
import android.content.Context
import android.os.Build
import android.os.PowerManager
import pocketdiffusion.engine.Device
import pocketdiffusion.engine.ProgramVersion

/** This phone as it is now: its memory, how warm it is, and what it is called. */
class Phone(private val context: Context) {
    /** What ended a process: want of memory, a mistake in it, the person, another rule of the system. */
    enum class End { UNKNOWN, MEMORY, CRASH, PERSON, SYSTEM }

    enum class Heat { UNKNOWN, NORMAL, WARM, HOT, CRITICAL }

    private val activities get() = context.getSystemService(ActivityManager::class.java)!!
    private val power get() = context.getSystemService(PowerManager::class.java)!!

    /** The memory that apps can have before the system begins to end them, in bytes. */
    fun leftBytes(): Long {
        val info = ActivityManager.MemoryInfo().also { activities.getMemoryInfo(it) }
        return Math.max(info.availMem - info.threshold, 0)
    }

    fun heat(): Heat = if (Build.VERSION.SDK_INT >= 29) heatNow() else Heat.UNKNOWN

    val isSavingPower: Boolean get() = power.isPowerSaveMode

    fun device() = Device(
        maker = Build.MANUFACTURER,
        model = Build.MODEL,
        soc = if (Build.VERSION.SDK_INT >= 31) socNow() else null,
        os = ProgramVersion("Android", Build.VERSION.RELEASE),
        app = ProgramVersion(context.packageName, versionName()),
    )

    /** Why the app's last process ended, as the system says; Android 8 to 10 do not. */
    fun lastEnd(): End = if (Build.VERSION.SDK_INT >= 30) lastEndNow() else End.UNKNOWN

    private fun versionName() = context.packageManager.getPackageInfo(context.packageName, 0).versionName.orEmpty()

    @SinceApi(29)
    private fun heatNow(): Heat = when (power.currentThermalStatus) {
        PowerManager.THERMAL_STATUS_NONE -> Heat.NORMAL
        PowerManager.THERMAL_STATUS_LIGHT, PowerManager.THERMAL_STATUS_MODERATE -> Heat.WARM
        PowerManager.THERMAL_STATUS_SEVERE -> Heat.HOT
        else -> Heat.CRITICAL
    }

    @SinceApi(31)
    private fun socNow(): String = Build.SOC_MODEL

    @SinceApi(30)
    private fun lastEndNow(): End {
        val last = activities.getHistoricalProcessExitReasons(context.packageName, 0, 1).firstOrNull()
        return when (last?.reason) {
            ApplicationExitInfo.REASON_LOW_MEMORY -> End.MEMORY
            ApplicationExitInfo.REASON_CRASH, ApplicationExitInfo.REASON_CRASH_NATIVE -> End.CRASH
            ApplicationExitInfo.REASON_USER_REQUESTED, ApplicationExitInfo.REASON_USER_STOPPED -> End.PERSON
            ApplicationExitInfo.REASON_ANR,
            ApplicationExitInfo.REASON_EXCESSIVE_RESOURCE_USAGE,
            ApplicationExitInfo.REASON_DEPENDENCY_DIED,
            -> End.SYSTEM
            else -> End.UNKNOWN
        }
    }
}
