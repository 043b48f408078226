package pocketdiffusion.app

import android.content.ContentResolver
import android.graphics.Bitmap
import android.net.Uri
import android.os.Handler
import android.os.Looper
import kotlin.concurrent.thread

/**
 * The photo to start from as the screen shows it: its middle, small, read on a thread of its own. A photo is of any
 * size, may be deleted, and may be another app's that lends it no more. The main thread alone calls.
 */
class Thumbnail(private val resolver: ContentResolver, private val onRead: (Throwable?) -> Unit) {
    private val main = Handler(Looper.getMainLooper())
    private var photo: Uri? = null

    /** Null until it is read, and where there is none. */
    var bitmap: Bitmap? = null
        private set

    /** Begins to read a photo that was not read yet; `onRead` hears the end of it, with the error where it failed. */
    fun show(wished: Uri?) {
        if (wished == photo) return
        photo = wished
        bitmap = null
        if (wished == null) return
        thread(name = "thumbnail") {
            val result = runCatching {
                Bitmaps.of(Photos.read(resolver, wished, SIDE, SIDE, MOST_PIXELS), leastSide = SIDE)
            }
            main.post { if (wished == photo) end(result) }
        }
    }

    private fun end(result: Result<Bitmap>) {
        bitmap = result.getOrNull()
        onRead(result.exceptionOrNull())
    }

    private companion object {
        const val SIDE = 1 // as wide as high
        const val MOST_PIXELS = 500_000L
    }
}
