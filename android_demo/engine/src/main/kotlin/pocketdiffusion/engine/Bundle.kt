package pocketdiffusion.engine

import java.io.IOException
import java.nio.file.FileVisitResult
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.Path
import java.nio.file.SimpleFileVisitor
import java.nio.file.attribute.BasicFileAttributes

/**
 * A bundle in a folder (docs/BUNDLE.md, sections 1 and 2). It opens whole or not at all: names and sizes are compared
 * when it is opened, the digest of each file when it is first read, and of all files by `checkAll`.
 */
class Bundle private constructor(val folder: Path, val manifest: Manifest, private val digests: DigestMemory) {
    /** The bytes of a file of the table, whose digest is compared each time. */
    fun read(path: String): ByteArray {
        val entry = entryOf(path)
        val bytes = reading(path) { Files.readAllBytes(ordinary(path)) }
        if (bytes.size.toLong() != entry.size) throw NotWhole(listOf(Fault(path, Fault.Kind.SIZE)))
        if (DigestMemory.digestOf(bytes) != entry.sha256) throw NotWhole(listOf(Fault(path, Fault.Kind.CONTENT)))
        return bytes
    }

    fun text(path: String): String = decodeUtf8(read(path), path)

    fun json(path: String): JsonNode = JsonNode.parse(read(path), path)

    fun array(ref: ArrayRef): Tensor = Tensor.fromBytes(read(ref.path), ref.dtype, ref.shape, ref.path)

    /** Where a file lies that an engine opens by itself, once its digest was compared. */
    fun locate(path: String, onBytes: (Int) -> Unit = {}): Path {
        checkDigest(path, onBytes)?.let { throw NotWhole(listOf(it)) }
        return folder.resolve(path)
    }

    /**
     * Compares the digest of every file that is installed; `onProgress` hears how many bytes of how many were read,
     * and may throw to stop. Throws NotWhole, which names all that are wrong.
     */
    fun checkAll(onProgress: (Long, Long) -> Unit = { _, _ -> }) {
        val paths = manifest.files.paths.filter { Files.exists(folder.resolve(it)) }
        val total = paths.sumOf { entryOf(it).size }
        var done = 0L
        val faults = paths.mapNotNull { path ->
            val before = done
            val fault = checkDigest(path) { count ->
                done += count
                onProgress(done, total)
            }
            done = before + entryOf(path).size // also where it was remembered, and nothing was read
            fault
        }
        onProgress(total, total)
        if (faults.isNotEmpty()) throw NotWhole(faults)
    }

    /** The pipeline of a format, or of the first that the bundle has of `formats`. */
    fun pipeline(formats: List<String>): Pipeline {
        val format = formats.firstOrNull { it in manifest.formats }
        if (format == null) {
            val there = manifest.formats.keys.joinToString(" and ")
            throw CannotRunHere("the bundle", "it holds $there, and this app runs ${formats.joinToString(" and ")}")
        }
        return Pipeline.read(format, json(manifest.formats.getValue(format)))
    }

    private fun checkDigest(path: String, onBytes: (Int) -> Unit): Fault? {
        val entry = entryOf(path)
        val file = ordinary(path)
        return reading(path) {
            when {
                Files.size(file) != entry.size -> Fault(path, Fault.Kind.SIZE)
                digests.sha256(file, onBytes) != entry.sha256 -> Fault(path, Fault.Kind.CONTENT)
                else -> null
            }
        }
    }

    private fun entryOf(path: String): FileEntry =
        manifest.files[path] ?: throw Contradiction(path, "the manifest does not list it")

    /** The file itself: neither it nor a folder above it, within the bundle, is a link. */
    private fun ordinary(path: String): Path {
        var at = folder
        for (part in path.split("/")) {
            at = at.resolve(part)
            if (Files.isSymbolicLink(at)) throw NotWhole(listOf(Fault(path, Fault.Kind.LINK)))
        }
        if (!Files.isRegularFile(at, LinkOption.NOFOLLOW_LINKS)) {
            if (entryOf(path).role != Role.RUNTIME) throw ProofNotInstalled(path)
            throw NotWhole(listOf(Fault(path, Fault.Kind.MISSING)))
        }
        return at
    }

    companion object {
        const val VERSION = 2
        private val LINE = Regex("([0-9a-f]{64}) {2}manifest\\.json\\n")

        /**
         * Opens the bundle in `folder`. One that failed its proof is opened only where `unproven` says so, which is for
         * developers. Throws NotABundle, WrongVersion, NotWhole, Refusal, Contradiction or ProofFailed.
         */
        fun open(folder: Path, digests: DigestMemory = DigestMemory(), unproven: Boolean = false): Bundle {
            if (!Files.isDirectory(folder)) throw NotABundle("$folder", "it is not a folder")
            val manifest = Manifest.read(readManifest(folder))
            val faults = manifest.files.faults(list(folder))
            if (faults.isNotEmpty()) throw NotWhole(faults)
            if (!manifest.proof.passed && !unproven) throw ProofFailed(manifest.proof.worst)
            return Bundle(folder, manifest, digests)
        }

        private fun readManifest(folder: Path): JsonNode {
            val (bytes, line) = listOf(FileTable.MANIFEST, FileTable.DIGEST).map { readTop(folder, it) }
            if (bytes == null && line == null) throw NotABundle("$folder", "it has no ${FileTable.MANIFEST}")
            if (bytes == null) throw NotWhole(listOf(Fault(FileTable.MANIFEST, Fault.Kind.MISSING)))
            if (line == null) throw NotWhole(listOf(Fault(FileTable.DIGEST, Fault.Kind.MISSING)))
            return parseManifest(bytes, line)
        }

        /** manifest.json, which is the one that manifest.sha256 names, and of the version that this engine reads. */
        internal fun parseManifest(bytes: ByteArray, line: ByteArray): JsonNode {
            val told = LINE.matchEntire(String(line, Charsets.ISO_8859_1))?.groupValues?.get(1)
            if (told == null) throw NotWhole(listOf(Fault(FileTable.DIGEST, Fault.Kind.CONTENT)))
            val isNamed = told == DigestMemory.digestOf(bytes)
            if (!isNamed) throw NotWhole(listOf(Fault(FileTable.MANIFEST, Fault.Kind.CONTENT)))
            val manifest = JsonNode.parse(bytes, FileTable.MANIFEST)
            val version = manifest["version"].int()
            if (version != VERSION) throw WrongVersion(version, VERSION)
            return manifest
        }

        private fun readTop(folder: Path, name: String): ByteArray? {
            val file = folder.resolve(name)
            if (Files.isSymbolicLink(file)) throw NotWhole(listOf(Fault(name, Fault.Kind.LINK)))
            return if (Files.isRegularFile(file)) reading(name) { Files.readAllBytes(file) } else null
        }

        private fun <T> reading(path: String, work: () -> T): T = try {
            work()
        } catch (error: IOException) {
            throw Unreadable(path, error)
        }

        /** Every file below the folder with its size; null stands for links and other odd files. */
        private fun list(folder: Path): Map<String, Long?> {
            val found = HashMap<String, Long?>()
            Files.walkFileTree(
                folder,
                object : SimpleFileVisitor<Path>() {
                    override fun visitFile(file: Path, attributes: BasicFileAttributes): FileVisitResult {
                        val path = folder.relativize(file).joinToString("/")
                        found[path] = if (attributes.isRegularFile) attributes.size() else null
                        return FileVisitResult.CONTINUE
                    }

                    override fun visitFileFailed(file: Path, error: IOException): FileVisitResult =
                        FileVisitResult.CONTINUE // a folder of another program; our own files will be missed
                },
            )
            return found
        }
    }
}
