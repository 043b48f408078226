package pocketdiffusion.app

import android.graphics.Bitmap
import pocketdiffusion.engine.ImageToImage
import pocketdiffusion.engine.Picture

/** Pictures as the screen shows them. */
object Bitmaps {
    private const val LEAST_SIDE = 512
    const val PREVIEW_SIDE = 192
    private const val OPAQUE = 0xff shl 24

    /** A bitmap of the picture; a small one is enlarged by Lanczos, which the screen's own enlargement would blur. */
    fun of(picture: Picture, leastSide: Int = LEAST_SIDE): Bitmap {
        val factor = Math.max(leastSide / Math.max(picture.width, picture.height), 1)
        val shown = if (factor == 1) {
            picture
        } else {
            ImageToImage.resize(picture, picture.width * factor, picture.height * factor)
        }
        val colours = IntArray(shown.width * shown.height) { i ->
            fun level(k: Int) = shown.rgb[3 * i + k].toInt() and 0xff
            OPAQUE or (level(0) shl 16) or (level(1) shl 8) or level(2)
        }
        return Bitmap.createBitmap(colours, shown.width, shown.height, Bitmap.Config.ARGB_8888)
    }
}
