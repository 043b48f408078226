package pocketdiffusion.app

import android.content.Context
import android.os.StatFs
import pocketdiffusion.engine.Bundle
import pocketdiffusion.engine.BundleDownload
import pocketdiffusion.engine.BundleImport
import pocketdiffusion.engine.DigestMemory
import pocketdiffusion.engine.EngineError
import pocketdiffusion.engine.Remote
import pocketdiffusion.engine.Unreadable
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.io.UncheckedIOException
import java.net.URI

/** A folder that is or should be a bundle. */
class Place(val name: String, val folder: File, val origin: Origin) {
    enum class Origin { PUSHED, OWN }

    override fun equals(other: Any?) = other is Place && other.folder == folder

    override fun hashCode() = folder.hashCode()
}

/** A download that broke off: its bundle's name, where it goes on, and how much of it is here. */
class Unfinished(val name: String, val address: String?, val bytes: Long) {
    override fun equals(other: Any?) = other is Unfinished && other.name == name && other.bytes == bytes

    override fun hashCode() = name.hashCode()
}

/** What a look at a place gave: the bundle, or why it is none. Digests are not compared. */
class Inspected(val place: Place, val bundle: Bundle?, val error: EngineError?, val bytes: Long)

/**
 * The bundles on this phone: those that a computer pushed into the app's folder on the shared storage, and those that
 * were imported or downloaded into the app's own. Names that begin with a point are work that is not done.
 */
class Library(private val context: Context) {
    /** Where `adb push` puts bundles; null where the phone has no shared storage now. */
    val pushed: File? get() = context.getExternalFilesDir(FOLDER)
    private val own: File = File(context.filesDir, FOLDER)
    val digests = DigestMemory(File(context.filesDir, "digests.txt").toPath())

    fun places(): List<Place> {
        val both = listOf(pushed to Place.Origin.PUSHED, own to Place.Origin.OWN)
        return both.flatMap { (parent, origin) ->
            val folders = parent?.listFiles().orEmpty().filter { it.isDirectory && !it.name.startsWith(".") }
            folders.sortedBy { it.name }.map { Place(it.name, it, origin) }
        }
    }

    fun find(name: String?): Place? = places().firstOrNull { it.name == name }

    /** The one to begin with: the first that holds ONNX, which each phone of this app runs, or else the first. */
    fun first(): Place? = places().let { all -> all.firstOrNull(::holdsOnnx) ?: all.firstOrNull() }

    private fun holdsOnnx(place: Place): Boolean = try {
        Engines.ONNX in Bundle.open(place.folder.toPath(), digests).manifest.formats
    } catch (_: EngineError) {
        false
    }

    fun inspect(place: Place): Inspected {
        val bytes = place.folder.walk().filter { it.isFile }.sumOf { it.length() }
        return try {
            Inspected(place, Bundle.open(place.folder.toPath(), digests), null, bytes)
        } catch (error: EngineError) {
            Inspected(place, null, error, bytes)
        } catch (error: IOException) { // deleted meanwhile, or the system's refusal
            Inspected(place, null, Unreadable(place.name, error), bytes)
        } catch (error: UncheckedIOException) {
            Inspected(place, null, Unreadable(place.name, error), bytes)
        }
    }

    fun delete(place: Place) {
        place.folder.deleteRecursively()
        val isGone = place.origin == Place.Origin.OWN && !File(own, ".${place.name}$LOADING").exists()
        if (isGone) addressFile(place.name).delete()
    }

    /** Downloads that broke off, as they lie here. */
    fun unfinished(): List<Unfinished> {
        val folders = own.listFiles().orEmpty().filter { it.name.startsWith(".") && it.name.endsWith(LOADING) }
        return folders.sortedBy { it.name }.map { folder ->
            val name = folder.name.removePrefix(".").removeSuffix(LOADING)
            Unfinished(name, addressOf(name), folder.walk().filter { it.isFile }.sumOf { it.length() })
        }
    }

    fun delete(unfinished: Unfinished) {
        File(own, ".${unfinished.name}$LOADING").deleteRecursively()
        if (!File(own, unfinished.name).exists()) addressFile(unfinished.name).delete()
    }

    /** Removes what imports left that were killed. */
    fun clearImports() {
        val left = own.listFiles().orEmpty().filter { it.name.startsWith(".") && it.name.endsWith(IMPORTING) }
        left.forEach { it.deleteRecursively() }
    }

    /** The names of the bundles that came packed with the app, as assets bundles/NAME.zip. */
    fun shipped(): List<String> =
        context.assets.list(FOLDER).orEmpty().filter { it.endsWith(ZIP) }.map { it.removeSuffix(ZIP) }.sorted()

    /** The bundle_id of one of them, which lies beside it; empty where it does not. */
    fun shippedId(name: String): String = try {
        context.assets.open("$FOLDER/$name$ID").use { String(it.readBytes()).trim() }
    } catch (_: IOException) {
        ""
    }

    fun openShipped(name: String): InputStream = context.assets.open("$FOLDER/$name$ZIP")

    /** Unpacks a zip as `name`, in place of an older bundle of that name. */
    fun import(name: String, zip: InputStream, onBytes: (Long) -> Unit): Place {
        val folder = ownFolder(name)
        addressFile(name).delete()
        BundleImport(folder.toPath(), digests, ::leftBytes).unzip(zip, onBytes)
        return Place(name, folder, Place.Origin.OWN)
    }

    /**
     * Loads the bundle at an address, or what an earlier download did not. It takes the place of the one that was
     * loaded from there, and of no other. Throws what `BundleDownload.load` throws, and NotWritten.
     */
    fun download(address: String, remote: Remote, onBytes: (Long, Long) -> Unit): Place {
        val names = own.listFiles().orEmpty().mapNotNull { NAME_OF_ADDRESS.matchEntire(it.name)?.groupValues?.get(1) }
        val known = names.firstOrNull { addressOf(it)?.trimEnd('/') == address.trimEnd('/') }
        val folder = ownFolder(known ?: freeName(nameOf(address)))
        try {
            addressFile(folder.name).replaceWith(address.toByteArray())
        } catch (error: IOException) {
            throw NotWritten(folder.name, error)
        }
        BundleDownload(remote, folder.toPath(), digests, ::leftBytes).load(onBytes)
        return Place(folder.name, folder, Place.Origin.OWN)
    }

    /** A name under which no bundle lies yet. */
    fun freeName(wished: String): String {
        val name = clean(wished)
        val taken = places().map { it.name } + unfinished().map { it.name }
        return (sequenceOf(name) + generateSequence(2) { it + 1 }.map { "$name-$it" }).first { it !in taken }
    }

    /** Says from where a bundle was loaded. */
    private fun addressFile(name: String) = File(own, ".$name$ADDRESS")

    private fun addressOf(name: String): String? = try {
        addressFile(name).takeIf { it.isFile }?.readText()
    } catch (_: IOException) {
        null
    }

    private fun ownFolder(name: String): File {
        own.mkdirs()
        return File(own, name)
    }

    private fun leftBytes(): Long = StatFs(own.path).availableBytes

    companion object {
        private const val FOLDER = "bundles"
        private const val ZIP = ".zip"
        private const val ID = ".id"
        private const val ADDRESS = ".address"
        private const val LOADING = ".loading" // as BundleDownload names it
        private const val IMPORTING = ".importing" // as BundleImport names it
        private val NAME_OF_ADDRESS = Regex("\\.(.+)\\.address")
        private val NOT_IN_NAMES = Regex("[^A-Za-z0-9._-]+")
        private val GENERIC = setOf("resolve", "main", "tree")

        /** What a bundle at an address is called: the last part of the path that tells something. */
        fun nameOf(address: String): String {
            val uri = URI(address)
            val parts = uri.path.orEmpty().split("/").filter { it.isNotEmpty() && it !in GENERIC }
            return clean(parts.lastOrNull() ?: uri.host.orEmpty())
        }

        private fun clean(name: String): String =
            name.removeSuffix(ZIP).replace(NOT_IN_NAMES, "-").trim('.', '-').ifEmpty { "bundle" }
    }
}
