package pocketdiffusion.app

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Context
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException

/** Lets another app read the file that the person shared with it, and no other. */
class SharedFiles : ContentProvider() {
    override fun onCreate() = true

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        if (mode != "r") throw FileNotFoundException("$uri can be read alone")
        return ParcelFileDescriptor.open(fileOf(uri), ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun query(
        uri: Uri,
        projection: Array<String>?,
        selection: String?,
        arguments: Array<String>?,
        order: String?,
    ): Cursor {
        val file = fileOf(uri)
        val known = mapOf<String, Any>(OpenableColumns.DISPLAY_NAME to file.name, OpenableColumns.SIZE to file.length())
        val columns = (projection ?: known.keys.toTypedArray()).filter { it in known }
        return MatrixCursor(columns.toTypedArray(), 1).apply { addRow(columns.map { known[it] }) }
    }

    override fun getType(uri: Uri): String = if (fileOf(uri).extension == "png") Gallery.PNG else "application/json"

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun update(uri: Uri, values: ContentValues?, selection: String?, arguments: Array<String>?) = 0

    override fun delete(uri: Uri, selection: String?, arguments: Array<String>?) = 0

    private fun fileOf(uri: Uri): File {
        val file = File(folder(context!!), File(uri.lastPathSegment.orEmpty()).name)
        if (!file.isFile) throw FileNotFoundException("$uri is shared no more")
        return file
    }

    companion object {
        /** Writes the file, in place of what was shared before, and returns its address. */
        fun offer(context: Context, name: String, bytes: ByteArray): Uri {
            val folder = folder(context)
            folder.deleteRecursively()
            folder.mkdirs()
            File(folder, name).writeBytes(bytes)
            return Uri.Builder().scheme("content").authority("${context.packageName}.files").appendPath(name).build()
        }

        private fun folder(context: Context) = File(context.cacheDir, "shared")
    }
}
