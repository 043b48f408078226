package pocketdiffusion.engine

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.nio.file.Files
import java.nio.file.Path
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes

/** Bundles that are changed, and sealed again as if nothing had happened. */
object Forgery {
    /** A copy of a bundle to change. */
    fun copy(bundle: Path, into: Path): Path {
        val folder = into.resolve("bundle")
        bundle.toFile().copyRecursively(folder.toFile())
        return folder
    }

    /** Changes the value at `keys` of a JSON file, and seals the bundle. */
    fun change(folder: Path, path: String, vararg keys: String, value: (JsonElement) -> JsonElement) {
        val file = folder.resolve(path)
        write(file, replace(read(file), keys.toList(), value))
        seal(folder)
    }

    /** Writes sizes and digests of all files of the table, the ids and manifest.sha256 anew. */
    fun seal(folder: Path) {
        val manifest = read(folder.resolve(FileTable.MANIFEST)) as JsonObject
        val files = (manifest.getValue("files") as JsonObject).mapValues { (path, entry) ->
            val file = folder.resolve(path)
            val told = mapOf(
                "size" to JsonPrimitive(Files.size(file)),
                "sha256" to JsonPrimitive(DigestMemory.digestOf(file.readBytes())),
            )
            JsonObject((entry as JsonObject) + told)
        }
        val changed = JsonObject(manifest + ("files" to JsonObject(files)))
        val table = FileTable.read(JsonNode.parse("$changed".toByteArray(), "forged"))
        val ids = mapOf("runtime_id" to table.runtimeId, "bundle_id" to table.bundleId)
        write(folder.resolve(FileTable.MANIFEST), JsonObject(changed + ids.mapValues { JsonPrimitive(it.value) }))
        sign(folder)
    }

    /** Writes manifest.sha256 alone. */
    fun sign(folder: Path) {
        val digest = DigestMemory.digestOf(folder.resolve(FileTable.MANIFEST).readBytes())
        folder.resolve(FileTable.DIGEST).writeBytes("$digest  manifest.json\n".toByteArray())
    }

    fun replace(element: JsonElement, keys: List<String>, value: (JsonElement) -> JsonElement): JsonElement {
        if (keys.isEmpty()) return value(element)
        val members = element as JsonObject
        return JsonObject(members + (keys[0] to replace(members.getValue(keys[0]), keys.drop(1), value)))
    }

    fun read(file: Path): JsonElement = Json.parseToJsonElement(String(file.readBytes()))

    fun write(file: Path, element: JsonElement) = file.writeBytes("$element".toByteArray())
}
