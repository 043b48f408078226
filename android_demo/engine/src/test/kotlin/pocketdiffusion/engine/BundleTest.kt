package pocketdiffusion.engine

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Files
import java.nio.file.Path
import kotlin.io.path.deleteExisting
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** A bundle opens whole or not at all, and says what is wrong with it by name. */
class BundleTest {
    @TempDir
    lateinit var scratch: Path

    private val original get() = Bundles.kit.resolve("pndm")

    private fun faultsOf(folder: Path): List<String> = try {
        Bundle.open(folder).checkAll()
        emptyList()
    } catch (error: NotWhole) {
        for (fault in error.faults.take(5)) assertTrue(fault.path in error.message!!)
        error.faults.map { "$it" }
    }

    @Test
    fun everyFileThatIsChangedMissingOrCutIsNamed() {
        val folder = Forgery.copy(original, scratch)
        assertEquals(emptyList(), faultsOf(folder))
        val table = Bundle.open(folder).manifest.files
        for (path in table.paths) {
            val file = folder.resolve(path)
            val bytes = file.readBytes()
            if (bytes.isEmpty()) continue
            file.writeBytes(bytes.clone().also { it[it.size / 2] = (it[it.size / 2] + 1).toByte() })
            assertEquals(listOf("$path ${Fault.Kind.CONTENT.words}"), faultsOf(folder))
            file.writeBytes(bytes.copyOf(bytes.size - 1))
            assertEquals(listOf("$path ${Fault.Kind.SIZE.words}"), faultsOf(folder))
            file.deleteExisting()
            val alone = table.paths.count { table[it]!!.role == table[path]!!.role } == 1
            val expected = if (alone &&
                table[path]!!.role != Role.RUNTIME
            ) {
                emptyList()
            } else {
                listOf("$path ${Fault.Kind.MISSING.words}")
            }
            assertEquals(expected, faultsOf(folder))
            file.writeBytes(bytes)
        }
        assertEquals(emptyList(), faultsOf(folder))
    }

    @Test
    fun filesOfOthersArePassedOverOrNamed() {
        val folder = Forgery.copy(original, scratch)
        for (path in listOf("Thumbs.db", "onnx/._model.onnx", "a/__MACOSX/b/c", ".git/HEAD", ".trashed-1700-x.jpg")) {
            Files.createDirectories(folder.resolve(path).parent)
            folder.resolve(path).writeBytes(byteArrayOf(1))
        }
        assertEquals(emptyList(), faultsOf(folder))
        folder.resolve("onnx/extra.onnx").writeBytes(byteArrayOf(1))
        assertEquals(listOf("onnx/extra.onnx ${Fault.Kind.EXTRA.words}"), faultsOf(folder))
    }

    @Test
    fun linksAreRefused() {
        val folder = Forgery.copy(original, scratch)
        val tables = folder.resolve("steps/tables.bin")
        val elsewhere = Files.move(tables, scratch.resolve("tables.bin"))
        Files.createSymbolicLink(tables, elsewhere)
        assertEquals(listOf("steps/tables.bin ${Fault.Kind.LINK.words}"), faultsOf(folder))
        tables.deleteExisting()
        Files.copy(elsewhere, tables)
        val steps = Files.move(folder.resolve("steps"), scratch.resolve("steps"))
        Files.createSymbolicLink(folder.resolve("steps"), steps)
        assertTrue("steps ${Fault.Kind.EXTRA.words}" in faultsOf(folder))
    }

    @Test
    fun theRuntimePartIsEnough() {
        val folder = Forgery.copy(original, scratch)
        val table = Bundle.open(folder).manifest.files
        for (path in table.paths) if (table[path]!!.role != Role.RUNTIME) folder.resolve(path).deleteExisting()
        val bundle = Bundle.open(folder).apply { checkAll() }
        assertEquals("proof.json", assertFailsWith<ProofNotInstalled> { bundle.read("proof.json") }.path)
    }

    @Test
    fun theManifestIsThatOfItsDigest() {
        val folder = Forgery.copy(original, scratch)
        val manifest = folder.resolve(FileTable.MANIFEST)
        val digest = folder.resolve(FileTable.DIGEST)
        val bytes = manifest.readBytes()
        manifest.writeBytes(bytes + ' '.code.toByte())
        assertEquals(listOf("manifest.json ${Fault.Kind.CONTENT.words}"), faultsOf(folder))
        manifest.deleteExisting()
        assertEquals(listOf("manifest.json ${Fault.Kind.MISSING.words}"), faultsOf(folder))
        manifest.writeBytes(bytes)
        digest.writeBytes("nonsense\n".toByteArray())
        assertEquals(listOf("manifest.sha256 ${Fault.Kind.CONTENT.words}"), faultsOf(folder))
        digest.deleteExisting()
        assertEquals(listOf("manifest.sha256 ${Fault.Kind.MISSING.words}"), faultsOf(folder))
        manifest.deleteExisting()
        assertFailsWith<NotABundle> { Bundle.open(folder) }
        assertFailsWith<NotABundle> { Bundle.open(scratch.resolve("nowhere")) }
    }

    @Test
    fun otherVersionsAreRefused() {
        val folder = Forgery.copy(original, scratch)
        for ((version, way) in listOf(3 to "install a newer app", 1 to "export the model again")) {
            Forgery.change(folder, FileTable.MANIFEST, "version") { JsonPrimitive(version) }
            val error = assertFailsWith<WrongVersion> { Bundle.open(folder) }
            assertEquals(version, error.found)
            assertTrue(way in error.message!!)
        }
    }

    @Test
    fun aBundleThatFailedItsProofIsForDevelopersAlone() {
        val folder = Forgery.copy(original, scratch)
        Forgery.change(folder, FileTable.MANIFEST, "proof", "passed") { JsonPrimitive(false) }
        assertFailsWith<ProofFailed> { Bundle.open(folder) }
        assertEquals(false, Bundle.open(folder, unproven = true).manifest.proof.passed)
    }

    @Test
    fun idsAreThoseOfTheTable() {
        val folder = Forgery.copy(original, scratch)
        Forgery.write(
            folder.resolve(FileTable.MANIFEST),
            Forgery.replace(Forgery.read(folder.resolve(FileTable.MANIFEST)), listOf("runtime_id")) {
                JsonPrimitive("0".repeat(64))
            },
        )
        Forgery.sign(folder)
        assertTrue("runtime_id" in assertFailsWith<Contradiction> { Bundle.open(folder) }.where)
    }

    @Test
    fun whatALaterMinorVersionAddsIsPassedOver() {
        val folder = Forgery.copy(original, scratch)
        fun add(path: String, vararg keys: String) = Forgery.change(folder, path, *keys) {
            JsonObject((it as JsonObject) + ("later" to JsonPrimitive("thing")))
        }
        Forgery.change(folder, FileTable.MANIFEST, "minor") { JsonPrimitive(99) }
        add(FileTable.MANIFEST)
        add(FileTable.MANIFEST, "target")
        add("pipeline/onnx.json")
        add("pipeline/onnx.json", "steps")
        add("pipeline/onnx.json", "program")
        add("pipeline/onnx.json", "graphs", "unet")
        Generator(Bundle.open(folder), OrtEngine(threads = 1)).use { it.draw(Request("x", seed = "1", steps = 1)) }
    }

    @Test
    fun filesThatSayWhatCannotBeAreNamedAndNoCrash() {
        val pipeline = "pipeline/onnx.json"
        val faults = mapOf<String, (Path) -> Unit>(
            "pipeline/onnx.json.steps" to { folder: Path ->
                Forgery.change(folder, pipeline, "steps") { JsonObject((it as JsonObject) - "samplers") }
            },
            "pipeline/onnx.json.vae.scaling_factor" to { folder: Path ->
                Forgery.change(folder, pipeline, "vae", "scaling_factor") { JsonPrimitive("0.5") }
            },
            "steps/tables.bin" to { folder: Path ->
                folder.resolve("steps/tables.bin").writeBytes(ByteArray(16))
                Forgery.seal(folder)
            },
            pipeline to { folder: Path ->
                folder.resolve(pipeline).writeBytes("{\"steps\": ".toByteArray())
                Forgery.seal(folder)
            },
        )
        for ((where, fault) in faults) {
            scratch.resolve("bundle").toFile().deleteRecursively()
            val folder = Forgery.copy(original, scratch).also(fault)
            val error = assertFailsWith<Contradiction>(where) {
                Generator(Bundle.open(folder), OrtEngine(threads = 1)).draw(Request("x", seed = "1", steps = 6))
            }
            assertEquals(where, error.where)
        }
    }

    @Test
    fun digestsAreRememberedBySizeAndDate() {
        val file = scratch.resolve("file").also { it.writeBytes(ByteArray(1000)) }
        val store = scratch.resolve("digests")
        var read = 0
        fun digest(memory: DigestMemory) = memory.sha256(file) { read += it }
        val first = digest(DigestMemory(store))
        assertEquals(1000, read)
        assertEquals(first, digest(DigestMemory(store)))
        assertEquals(1000, read)
        file.writeBytes(ByteArray(1000) { 1 })
        Files.setLastModifiedTime(file, java.nio.file.attribute.FileTime.fromMillis(1))
        assertTrue(first != digest(DigestMemory(store)))
        assertEquals(2000, read)
        store.writeBytes("broken".toByteArray())
        digest(DigestMemory(store))
        assertEquals(3000, read)
    }

    @Test
    fun checkingCanBeStoppedAndTellsHowFarItIs() {
        val bundle = Bundle.open(original)
        var last = 0L
        bundle.checkAll { done, total ->
            assertTrue(done in last..total)
            last = done
        }
        assertFailsWith<Cancelled> { Bundle.open(original).checkAll { _, _ -> throw Cancelled() } }
    }

    @Test
    fun aFormatThatThisAppDoesNotRunIsNamed() {
        val error = assertFailsWith<CannotRunHere> { Bundle.open(original).pipeline(listOf("tflite")) }
        assertTrue("onnx" in error.why && "tflite" in error.why)
        assertNull(Bundle.open(original).manifest.formats["coreml"])
    }
}
