package pocketdiffusion.app

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import pocketdiffusion.engine.ImageToImage
import pocketdiffusion.engine.Picture
import java.io.IOException
import java.io.InputStream

/** A photo that cannot be read. */
class PhotoUnreadable(cause: Throwable?) : Exception("the photo cannot be read", cause)

/** Photos to start from: upright, over white, the middle cut out in the bundle's proportions. */
object Photos {
    private const val MOST_PIXELS = 4_000_000L // 60 MB on the way, and more than any bundle's picture has

    /** Reads the middle, in the proportions of `width` to `height`; large photos coarsely. Throws PhotoUnreadable. */
    fun read(resolver: ContentResolver, photo: Uri, width: Int, height: Int, mostPixels: Long = MOST_PIXELS): Picture {
        val size = open(resolver, photo) { stream ->
            BitmapFactory.Options().apply {
                inJustDecodeBounds = true
                BitmapFactory.decodeStream(stream, null, this)
            }
        }
        if (size.outWidth <= 0) throw PhotoUnreadable(null)
        val options = BitmapFactory.Options().apply {
            inPremultiplied = false // as alpha_composite takes them; such a bitmap can be read, but not drawn
            inSampleSize = 1
            while (size.outWidth.toLong() * size.outHeight / inSampleSize / inSampleSize > mostPixels) inSampleSize *= 2
        }
        val turn = open(resolver, photo, ::turnOf)
        val bitmap = open(resolver, photo) { BitmapFactory.decodeStream(it, null, options) }
        return cut(bitmap ?: throw PhotoUnreadable(null), turn, width, height)
    }

    private fun <T> open(resolver: ContentResolver, photo: Uri, work: (InputStream) -> T): T = try {
        (resolver.openInputStream(photo) ?: throw PhotoUnreadable(null)).use(work)
    } catch (error: IOException) {
        throw PhotoUnreadable(error)
    } catch (error: RuntimeException) { // the permission ended with the last start, or the other app failed
        throw PhotoUnreadable(error)
    } catch (error: OutOfMemoryError) {
        throw PhotoUnreadable(error)
    }

    /** How the pixels of a file lie in it: rows for columns, then from the right, and from below. */
    private class Turn(val swaps: Boolean, val fromRight: Boolean, val fromBelow: Boolean)

    private fun turnOf(stream: InputStream): Turn {
        val orientation = try {
            ExifInterface(stream).getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
        } catch (_: IOException) {
            ExifInterface.ORIENTATION_NORMAL
        }
        return when (orientation) {
            ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> Turn(swaps = false, fromRight = true, fromBelow = false)
            ExifInterface.ORIENTATION_ROTATE_180 -> Turn(swaps = false, fromRight = true, fromBelow = true)
            ExifInterface.ORIENTATION_FLIP_VERTICAL -> Turn(swaps = false, fromRight = false, fromBelow = true)
            ExifInterface.ORIENTATION_TRANSPOSE -> Turn(swaps = true, fromRight = false, fromBelow = false)
            ExifInterface.ORIENTATION_ROTATE_90 -> Turn(swaps = true, fromRight = false, fromBelow = true)
            ExifInterface.ORIENTATION_TRANSVERSE -> Turn(swaps = true, fromRight = true, fromBelow = true)
            ExifInterface.ORIENTATION_ROTATE_270 -> Turn(swaps = true, fromRight = true, fromBelow = false)
            else -> Turn(swaps = false, fromRight = false, fromBelow = false)
        }
    }

    /** The middle of a bitmap, upright. */
    private fun cut(bitmap: Bitmap, turn: Turn, width: Int, height: Int): Picture {
        val wished = if (turn.swaps) height to width else width to height
        val scale = Math.min(bitmap.width.toDouble() / wished.first, bitmap.height.toDouble() / wished.second)
        val (w, h) = wished.toList().map { Math.max((it * scale).toInt(), 1) }
        val colours = IntArray(w * h)
        bitmap.getPixels(colours, 0, w, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h)
        bitmap.recycle()
        val (uprightW, uprightH) = if (turn.swaps) h to w else w to h
        val rgba = ByteArray(colours.size * 4)
        for (y in 0 until uprightH) {
            for (x in 0 until uprightW) {
                val column = if (turn.swaps) y else x
                val row = if (turn.swaps) x else y
                val line = if (turn.fromBelow) h - 1 - row else row
                val colour = colours[w * line + if (turn.fromRight) w - 1 - column else column]
                val at = 4 * (uprightW * y + x)
                rgba[at] = (colour shr 16).toByte()
                rgba[at + 1] = (colour shr 8).toByte()
                rgba[at + 2] = colour.toByte()
                rgba[at + 3] = (colour ushr 24).toByte()
            }
        }
        return Picture(uprightW, uprightH, ImageToImage.overWhite(rgba))
    }
}
