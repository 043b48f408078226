package pocketdiffusion.engine

import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.Path
import java.util.zip.ZipEntry
import java.util.zip.ZipInputStream

/**
 * A bundle out of a zip. It appears in its folder whole and checked, in one rename, or not at all: what an import
 * that was killed left behind is removed by the next.
 */
class BundleImport(
    private val folder: Path,
    private val digests: DigestMemory = DigestMemory(),
    /** The bytes that are left where the folder lies, as the system tells. */
    private val leftBytes: () -> Long,
) {
    private val staging = folder.resolveSibling(".${folder.fileName}.importing")

    /**
     * Unpacks `zip`, in which the bundle lies at the top or in one folder. `onBytes` hears how many bytes were
     * written, and may throw to stop. Throws StorageFull, Unreadable, and what `Bundle.open` throws.
     */
    fun unzip(zip: InputStream, onBytes: (Long) -> Unit = {}): Bundle {
        remove(staging)
        try {
            Files.createDirectories(staging)
            unpack(ZipInputStream(zip), onBytes)
            val root = findRoot()
            Bundle.open(root, digests).checkAll()
            remove(folder)
            Files.move(root, folder)
            digests.moved(root, folder)
        } catch (error: IOException) {
            if (leftBytes() < SPARE) throw StorageFull(leftBytes())
            throw Unreadable("${folder.fileName}", error)
        } finally {
            remove(staging)
        }
        return Bundle.open(folder, digests)
    }

    private fun unpack(zip: ZipInputStream, onBytes: (Long) -> Unit) {
        val piece = ByteArray(PIECE)
        var done = 0L
        var next = 0L // a zip gives some hundred bytes at once: neither storage nor listener is asked each time
        while (true) {
            val entry = zip.nextEntry ?: return
            val path = placeOf(entry) ?: continue
            Files.createDirectories(path.parent)
            Files.newOutputStream(path).use { file ->
                while (true) {
                    val count = zip.read(piece)
                    if (count < 0) break
                    if (done >= next) {
                        if (leftBytes() < EACH + SPARE) throw StorageFull(leftBytes())
                        onBytes(done)
                        next = done + EACH
                    }
                    file.write(piece, 0, count)
                    done += count
                }
            }
        }
    }

    /**
     * Where an entry goes; null for folders and for names that no file of a bundle has, such as `..` or
     * `__MACOSX/._x`.
     */
    private fun placeOf(entry: ZipEntry): Path? {
        val isOurs = !entry.isDirectory && FileTable.isPath(entry.name)
        return if (isOurs) staging.resolve(entry.name) else null
    }

    private fun findRoot(): Path {
        if (Files.exists(staging.resolve(FileTable.MANIFEST))) return staging
        val inside = Files.newDirectoryStream(staging).use { folders ->
            folders.filter { Files.exists(it.resolve(FileTable.MANIFEST)) }
        }
        return inside.singleOrNull() ?: throw NotABundle("${folder.fileName}", "the zip has no ${FileTable.MANIFEST}")
    }

    private fun remove(folder: Path) {
        folder.toFile().deleteRecursively()
    }

    private companion object {
        const val PIECE = 1 shl 18

        /** After how many bytes storage is looked at, and the listener told. */
        const val EACH = 1L shl 20
        const val SPARE = 8L shl 20 // bytes that are left to the rest of the system
    }
}
