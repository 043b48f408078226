package pocketdiffusion.app

import android.app.Application

/** The process: it owns the studio, which outlives every screen. */
class PocketApp : Application() {
    val studio by lazy { Studio(this) }
}
