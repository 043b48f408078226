package pocketdiffusion.app

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Matrix
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
    private const val MOST_PIXELS = 16_000_000L

    /** Throws PhotoUnreadable. */
    fun read(resolver: ContentResolver, photo: Uri, width: Int, height: Int): Picture {
        val size = open(resolver, photo) { stream ->
            BitmapFactory.Options().apply {
                inJustDecodeBounds = true
                BitmapFactory.decodeStream(stream, null, this)
            }
        }
        if (size.outWidth <= 0) throw PhotoUnreadable(null)
        val options = BitmapFactory.Options().apply {
            inPremultiplied = false
            inSampleSize = 1
            while (size.outWidth.toLong() * size.outHeight / inSampleSize / inSampleSize >
                MOST_PIXELS
            ) {
                inSampleSize *= 2
            }
        }
        val turn = open(resolver, photo, ::uprightMatrix)
        val bitmap = open(resolver, photo) { BitmapFactory.decodeStream(it, null, options) }
        return toPicture(cut(bitmap ?: throw PhotoUnreadable(null), turn, width, height))
    }

    private fun <T> open(resolver: ContentResolver, photo: Uri, work: (InputStream) -> T): T = try {
        (resolver.openInputStream(photo) ?: throw PhotoUnreadable(null)).use(work)
    } catch (error: IOException) {
        throw PhotoUnreadable(error)
    } catch (error: SecurityException) { // the permission to read it ended with the last start
        throw PhotoUnreadable(error)
    }

    private fun uprightMatrix(stream: InputStream) = Matrix().apply {
        val orientation = try {
            ExifInterface(stream).getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
        } catch (_: IOException) {
            ExifInterface.ORIENTATION_NORMAL
        }
        when (orientation) {
            ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> setScale(-1f, 1f)
            ExifInterface.ORIENTATION_ROTATE_180 -> setRotate(180f)
            ExifInterface.ORIENTATION_FLIP_VERTICAL -> setScale(1f, -1f)
            ExifInterface.ORIENTATION_TRANSPOSE -> setRotate(90f).also { postScale(-1f, 1f) }
            ExifInterface.ORIENTATION_ROTATE_90 -> setRotate(90f)
            ExifInterface.ORIENTATION_TRANSVERSE -> setRotate(-90f).also { postScale(-1f, 1f) }
            ExifInterface.ORIENTATION_ROTATE_270 -> setRotate(-90f)
        }
    }

    private fun cut(bitmap: Bitmap, turn: Matrix, width: Int, height: Int): Bitmap {
        val upright = Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, turn, false)
        val scale = Math.min(upright.width.toDouble() / width, upright.height.toDouble() / height)
        val (w, h) = listOf(width, height).map { Math.max((it * scale).toInt(), 1) }
        return Bitmap.createBitmap(upright, (upright.width - w) / 2, (upright.height - h) / 2, w, h)
    }

    private fun toPicture(bitmap: Bitmap): Picture {
        val colours = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(colours, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        val rgba = ByteArray(colours.size * 4)
        for ((i, colour) in colours.withIndex()) {
            rgba[4 * i] = (colour shr 16).toByte()
            rgba[4 * i + 1] = (colour shr 8).toByte()
            rgba[4 * i + 2] = colour.toByte()
            rgba[4 * i + 3] = (colour ushr 24).toByte()
        }
        return Picture(bitmap.width, bitmap.height, ImageToImage.overWhite(rgba))
    }
}
