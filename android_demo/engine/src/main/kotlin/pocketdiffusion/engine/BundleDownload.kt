package pocketdiffusion.engine

import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.URL
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardOpenOption

/** Where a bundle's files can be had by their paths. */
fun interface Remote {
    /** The bytes of a file from byte `from` on, or from its beginning: `RemoteFile.from` says which. */
    fun open(path: String, from: Long): RemoteFile
}

class RemoteFile(val bytes: InputStream, val from: Long)

/** A folder of a web server, such as a repository's .../resolve/main. */
class HttpRemote(private val address: String, private val timeoutMillis: Int = 30_000) : Remote {
    override fun open(path: String, from: Long): RemoteFile {
        val connection = URL("${address.trimEnd('/')}/$path").openConnection() as HttpURLConnection
        connection.connectTimeout = timeoutMillis
        connection.readTimeout = timeoutMillis
        connection.setRequestProperty("Accept-Encoding", "identity")
        if (from > 0) connection.setRequestProperty("Range", "bytes=$from-")
        return when (val code = connection.responseCode) {
            HttpURLConnection.HTTP_OK -> RemoteFile(connection.inputStream, 0)
            HttpURLConnection.HTTP_PARTIAL -> RemoteFile(connection.inputStream, from)
            else -> throw IOException("the server answered $code").also { connection.disconnect() }
        }
    }
}

/**
 * The runtime part of a bundle from a server. What arrived is kept where the download breaks off, and the next one
 * goes on from there; the bundle appears in its folder whole and checked, in one rename.
 */
class BundleDownload(
    private val remote: Remote,
    private val folder: Path,
    private val digests: DigestMemory = DigestMemory(),
    /** The bytes that are left where the folder lies, as the system tells. */
    private val leftBytes: () -> Long,
) {
    private val staging = folder.resolveSibling(".${folder.fileName}.loading")

    /** `onBytes` hears how many bytes of how many are there, and may throw to stop. */
    fun load(onBytes: (Long, Long) -> Unit = { _, _ -> }): Bundle {
        val (manifest, digest) = listOf(FileTable.MANIFEST, FileTable.DIGEST).map(::readWhole)
        val table = FileTable.read(Bundle.parseManifest(manifest, digest))
        val wanted = table.paths.filter { table[it]!!.role == Role.RUNTIME }.associateWith { table[it]!! }
        val total = wanted.values.sumOf { it.size }
        if (leftBytes() < total - wanted.keys.sumOf(::sizeOf) + SPARE) throw StorageFull(leftBytes())
        removeOthers(wanted.keys)
        var done = 0L
        for ((path, entry) in wanted) {
            val before = done
            loadFile(path, entry) { size -> onBytes(before + size, total) }
            done += entry.size
        }
        Files.write(staging.resolve(FileTable.MANIFEST), manifest)
        Files.write(staging.resolve(FileTable.DIGEST), digest)
        Bundle.open(staging)
        folder.toFile().deleteRecursively()
        Files.move(staging, folder)
        digests.moved(staging, folder)
        return Bundle.open(folder, digests)
    }

    /** What an older bundle of this name left. */
    private fun removeOthers(wanted: Set<String>) {
        val files = staging.toFile().walk().filter { it.isFile }
        val others = files.filter { it.relativeTo(staging.toFile()).invariantSeparatorsPath !in wanted }
        others.toList().forEach { it.delete() }
    }

    /**
     * What is not yet there of a file. One whose content is wrong is removed, to be loaded anew by the next download.
     */
    private fun loadFile(path: String, entry: FileEntry, onBytes: (Long) -> Unit) {
        val file = staging.resolve(path)
        Files.createDirectories(file.parent)
        if (sizeOf(path) > entry.size) Files.delete(file)
        if (sizeOf(path) < entry.size || entry.size == 0L) append(path, entry, onBytes)
        if (sizeOf(path) == entry.size && digests.sha256(file) == entry.sha256) return
        Files.delete(file)
        throw NotWhole(listOf(Fault(path, Fault.Kind.CONTENT)))
    }

    private fun append(path: String, entry: FileEntry, onBytes: (Long) -> Unit) {
        val file = staging.resolve(path)
        try {
            val source = remote.open(path, sizeOf(path))
            var size = source.from
            val way = if (size > 0) StandardOpenOption.APPEND else StandardOpenOption.TRUNCATE_EXISTING
            source.bytes.use { bytes ->
                Files.newOutputStream(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE, way).use { into ->
                    val piece = ByteArray(PIECE)
                    while (size <= entry.size) {
                        val count = bytes.read(piece)
                        if (count < 0) break
                        into.write(piece, 0, count)
                        size += count
                        onBytes(size)
                    }
                }
            }
            if (size < entry.size) throw IOException("the server sent $size of ${entry.size} bytes")
        } catch (error: IOException) {
            if (leftBytes() < SPARE) throw StorageFull(leftBytes())
            throw broken(path, error)
        }
    }

    private fun readWhole(name: String): ByteArray = try {
        remote.open(name, 0).bytes.use { it.readBytes() }
    } catch (error: IOException) {
        throw broken(name, error)
    }

    private fun broken(path: String, error: IOException): DownloadBroken {
        val done = staging.toFile().walk().filter { it.isFile }.sumOf { it.length() }
        return DownloadBroken(path, done, error.message ?: "the connection was lost", error)
    }

    /** The bytes of a file that are there. */
    private fun sizeOf(path: String): Long = staging.resolve(path).let { if (Files.exists(it)) Files.size(it) else 0 }

    private companion object {
        const val PIECE = 1 shl 18
        const val SPARE = 8L shl 20 // bytes that are left to the rest of the system
    }
}
