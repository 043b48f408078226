package pocketdiffusion.app

import android.content.ContentValues
import android.content.Context
import android.content.Intent
import android.net.Uri
import android.os.Build
import android.os.Environment
import android.provider.MediaStore
import java.io.File
import java.io.IOException

/** The gallery did not take a picture. */
class NotSaved(cause: Throwable?) : Exception("the picture was not saved", cause)

/** Where pictures go from here: into the gallery, and to other apps. The PNG says how the picture was made. */
class Gallery(private val context: Context) {
    /** Throws NotSaved. */
    fun save(png: ByteArray, name: String): Uri {
        val facts = ContentValues().apply {
            put(MediaStore.Images.Media.DISPLAY_NAME, name)
            put(MediaStore.Images.Media.MIME_TYPE, PNG)
            if (Build.VERSION.SDK_INT >= 29) { // which finds another name where this one is taken
                put(MediaStore.Images.Media.RELATIVE_PATH, "${Environment.DIRECTORY_PICTURES}/$ALBUM")
            } else {
                put(MediaStore.Images.Media.DATA, freeFile(oldAlbum(), name).path)
            }
        }
        val resolver = context.contentResolver
        var saved: Uri? = null
        try {
            saved = resolver.insert(MediaStore.Images.Media.EXTERNAL_CONTENT_URI, facts) ?: throw NotSaved(null)
            (resolver.openOutputStream(saved) ?: throw NotSaved(null)).use { it.write(png) }
            return saved
        } catch (error: IOException) {
            throw notSaved(saved, error)
        } catch (error: NotSaved) {
            throw notSaved(saved, error.cause)
        } catch (error: RuntimeException) { // the permission is not there, or the gallery failed
            throw notSaved(saved, error)
        }
    }

    /** Takes a row back that has no picture. */
    private fun notSaved(saved: Uri?, error: Throwable?): NotSaved {
        try {
            if (saved != null) context.contentResolver.delete(saved, null, null)
        } catch (_: RuntimeException) {
            // what is told is why the picture was not saved
        }
        return NotSaved(error)
    }

    /** A file of this name, or with -2, -3 ... before the ending where that is taken. */
    private fun freeFile(folder: File, name: String): File {
        val (stem, ending) = File(name).run { nameWithoutExtension to extension }
        val others = generateSequence(2) { it + 1 }.map { "$stem-$it.$ending" }
        return (sequenceOf(name) + others).map { File(folder, it) }.first { !it.exists() }
    }

    /** An intent that offers a file of `SharedFiles` to other apps. Throws NotWritten. */
    fun shareIntent(bytes: ByteArray, name: String, type: String): Intent {
        val uri = try {
            SharedFiles.offer(context, name, bytes)
        } catch (error: IOException) {
            throw NotWritten(name, error)
        }
        val send = Intent(Intent.ACTION_SEND).setType(type).putExtra(Intent.EXTRA_STREAM, uri)
        send.clipData = android.content.ClipData.newRawUri(name, uri)
        return Intent.createChooser(send.addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION), null)
    }

    @Suppress("DEPRECATION") // the folder that Android 8 and 9 have
    private fun oldAlbum(): File =
        File(Environment.getExternalStoragePublicDirectory(Environment.DIRECTORY_PICTURES), ALBUM).apply { mkdirs() }

    companion object {
        const val PNG = "image/png"
        private const val ALBUM = "Pocket Diffusion"
    }
}
