package pocketdiffusion.engine

import java.security.MessageDigest
import java.util.Locale

/** Who needs a file: of each role but RUNTIME all files are there, or none, also of one that is not known here. */
data class Role(val text: String) {
    companion object {
        val RUNTIME = Role("runtime")
        val REPORT = Role("report")
    }
}

/** One file of the bundle. */
class FileEntry(val sha256: String, val size: Long, val role: Role)

/** One thing that makes a bundle not whole. */
class Fault(val path: String, val kind: Kind) {
    enum class Kind(val words: String) {
        MISSING("is missing"),
        EXTRA("is not in the manifest"),
        LINK("is a link"),
        SIZE("has another size than the manifest says"),
        CONTENT("has another content than the manifest says"),
    }

    override fun toString() = "$path ${kind.words}"
}

/** The manifest's table of all files but manifest.json and manifest.sha256. */
class FileTable(
    private val files: Map<String, FileEntry>,
    private val passedOverFiles: List<String>,
    private val passedOverFolders: List<String>,
) {
    val paths: Set<String> get() = files.keys

    operator fun get(path: String): FileEntry? = files[path]

    val runtimeId: String get() = digestOf { it.role == Role.RUNTIME }
    val bundleId: String get() = digestOf { it.role != Role.REPORT }

    /** Whether a file that the table does not name is what other programs leave behind. */
    fun isPassedOver(path: String): Boolean {
        val parts = path.lowercase(Locale.ROOT).split("/")
        return passedOverFiles.any { matches(it, parts.last()) } ||
            parts.dropLast(1).any { folder -> passedOverFolders.any { matches(it, folder) } }
    }

    /** What is not right among the files `found`: path to size, or null for a link. Contents are not looked at. */
    fun faults(found: Map<String, Long?>): List<Fault> {
        val faults = mutableListOf<Fault>()
        for ((path, size) in found) {
            val entry = files[path]
            when {
                entry == null && path in OUTSIDE -> if (size == null) faults += Fault(path, Fault.Kind.LINK)
                entry == null -> if (!isPassedOver(path)) faults += Fault(path, Fault.Kind.EXTRA)
                size == null -> faults += Fault(path, Fault.Kind.LINK)
                size != entry.size -> faults += Fault(path, Fault.Kind.SIZE)
            }
        }
        for ((role, paths) in files.keys.groupBy { files.getValue(it).role }) {
            val missing = paths.filter { it !in found }
            val isInstalled = role == Role.RUNTIME || missing.size < paths.size
            if (isInstalled) faults += missing.map { Fault(it, Fault.Kind.MISSING) }
        }
        return faults.sortedBy { it.path }
    }

    private fun digestOf(keep: (FileEntry) -> Boolean): String {
        val digest = MessageDigest.getInstance("SHA-256")
        for (path in files.filterValues(keep).keys.sorted()) { // paths are ASCII: this is the order of their bytes
            digest.update("${files.getValue(path).sha256}  $path\n".toByteArray())
        }
        return digest.digest().toHex()
    }

    companion object {
        const val MANIFEST = "manifest.json"
        const val DIGEST = "manifest.sha256"
        private const val LONGEST_PATH = 240
        private val OUTSIDE = setOf(MANIFEST, DIGEST)
        private val PART = Regex("[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")
        private val SHA256 = Regex("[0-9a-f]{64}")

        /** Whether a file of a bundle can have this path. */
        internal fun isPath(path: String): Boolean =
            path.length <= LONGEST_PATH && path.split("/").all { PART.matches(it) }

        /** The table of the manifest. Throws Contradiction for a path that could not be, or not on every disk. */
        fun read(manifest: JsonNode): FileTable {
            val files = manifest["files"].entries().mapValues { (path, entry) -> readEntry(path, entry) }
            val spelled = HashMap<String, String>()
            fun fail(why: String): Nothing = throw Contradiction(MANIFEST, why)
            for (path in files.keys) {
                if (path.lowercase(Locale.ROOT) in OUTSIDE) fail("$path cannot hold its own digest")
                val parts = path.split("/")
                for (length in 1..parts.size) {
                    val name = parts.take(length).joinToString("/")
                    val other = spelled.getOrPut(name.lowercase(Locale.ROOT)) { name }
                    if (other != name) fail("$other and $name differ in case alone")
                    if (length < parts.size && name in files) fail("$name is both a file and a folder")
                }
            }
            val passedOver = manifest["passed_over"]
            return FileTable(files, passedOver["files"].texts(), passedOver["folders"].texts())
        }

        private fun readEntry(path: String, entry: JsonNode): FileEntry {
            if (!isPath(path)) entry.fail("this is not a path of a bundle")
            val role = Role(entry["role"].text())
            val sha256 = entry["sha256"].text()
            if (!SHA256.matches(sha256)) entry.fail("its sha256 is none")
            return FileEntry(sha256, entry["size"].long(), role)
        }

        /** Whether a pattern stands for a name: `*` for any characters, `?` for one. */
        internal fun matches(pattern: String, name: String): Boolean {
            val parts = pattern.map { character ->
                when (character) {
                    '*' -> ".*"
                    '?' -> "."
                    else -> Regex.escape("$character")
                }
            }
            return Regex(parts.joinToString(""), RegexOption.DOT_MATCHES_ALL).matches(name)
        }
    }
}

internal fun ByteArray.toHex(): String = joinToString("") { "%02x".format(Locale.ROOT, it) }
