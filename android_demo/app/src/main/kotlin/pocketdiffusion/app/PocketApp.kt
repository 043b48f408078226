package pocketdiffusion.app

import android.app.Application

/** The process: it owns the studio, which outlives every screen. */
class PocketApp : Application() {
    /** Tests put other ones in its place before the studio is made. */
    var engines: (PocketApp) -> Engines = ::Engines
    val studio by lazy { Studio(this, engines(this)) }
}
