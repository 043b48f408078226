package pocketdiffusion.engine

import java.io.IOException
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.security.MessageDigest

/**
 * The digests of files that were read once. A file of the same path, size and date is not read again; `store`, where
 * they are kept between runs of the app, lies outside of the bundle. Without a store they are kept in memory.
 */
class DigestMemory(private val store: Path? = null) {
    private val known = HashMap<String, String>() // "path|size|date" to sha256

    init {
        if (store != null) for (line in read(store)) learn(line)
    }

    /** The sha256 of a file; `onBytes` hears of every piece that is read, and may throw to stop. */
    @Synchronized
    fun sha256(file: Path, onBytes: (Int) -> Unit = {}): String {
        val before = keyOf(file)
        known[before]?.let { return it }
        val digest = digestOf(file, onBytes)
        if (keyOf(file) == before) remember(before, digest) // else it is being written: look again next time
        return digest
    }

    /** What is known of the files below `from` is true below `to`, to which the folder was renamed. */
    @Synchronized
    fun moved(from: Path, to: Path) {
        val (before, after) = listOf(from, to).map { "${it.toAbsolutePath().normalize()}/" }
        val files = known.filterKeys { it.startsWith(before) }
        known.keys.removeAll { it.startsWith(before) || it.startsWith(after) }
        for ((key, digest) in files) known[after + key.removePrefix(before)] = digest
        if (store != null) write(store)
    }

    private fun remember(key: String, digest: String) {
        val path = key.substringBeforeLast("|").substringBeforeLast("|")
        known.keys.removeAll { it.substringBeforeLast("|").substringBeforeLast("|") == path }
        known[key] = digest
        if (store != null) write(store)
    }

    private fun learn(line: String) {
        val digest = line.substringBefore("  ")
        if (digest.length == DIGEST_LENGTH) known[line.substringAfter("  ")] = digest
    }

    /** The store's lines. One that cannot be read is none: the files are read again. */
    private fun read(store: Path): List<String> = try {
        if (Files.isRegularFile(store)) Files.readAllLines(store) else emptyList()
    } catch (_: IOException) {
        emptyList()
    }

    /** A store that cannot be written, where storage is full, costs time at the next start, and no more. */
    private fun write(store: Path) {
        val next = store.resolveSibling("${store.fileName}.next")
        try {
            Files.write(next, known.map { (name, sha256) -> "$sha256  $name" }.sorted())
            Files.move(next, store, StandardCopyOption.REPLACE_EXISTING)
        } catch (_: IOException) {
            Files.deleteIfExists(next)
        }
    }

    private fun keyOf(file: Path): String {
        val path = file.toAbsolutePath().normalize()
        return "$path|${Files.size(path)}|${Files.getLastModifiedTime(path).toMillis()}"
    }

    companion object {
        private const val DIGEST_LENGTH = 64
        private const val PIECE = 1 shl 18

        private fun digestOf(file: Path, onBytes: (Int) -> Unit): String {
            val digest = MessageDigest.getInstance("SHA-256")
            val piece = ByteArray(PIECE)
            Files.newInputStream(file).use { stream ->
                while (true) {
                    val count = stream.read(piece)
                    if (count < 0) break
                    digest.update(piece, 0, count)
                    onBytes(count)
                }
            }
            return digest.digest().toHex()
        }

        internal fun digestOf(bytes: ByteArray): String = MessageDigest.getInstance("SHA-256").digest(bytes).toHex()
    }
}
