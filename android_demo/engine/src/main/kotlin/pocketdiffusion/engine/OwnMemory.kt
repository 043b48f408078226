package pocketdiffusion.engine

import java.io.File
import java.io.IOException

/** The memory of this process, as Linux tells it. */
internal object OwnMemory {
    /** Begins a new peak; false where the system does not let it. */
    fun forgetPeak(): Boolean = try {
        File("/proc/self/clear_refs").writeText("5")
        true
    } catch (_: IOException) {
        false
    }

    fun peakBytes(): Long? = try {
        val line = File("/proc/self/status").readLines().firstOrNull { it.startsWith("VmHWM:") }
        line?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)
    } catch (_: IOException) {
        null
    }
}
