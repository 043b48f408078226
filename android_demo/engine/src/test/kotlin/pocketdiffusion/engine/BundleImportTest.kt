package pocketdiffusion.engine

import org.junit.jupiter.api.io.TempDir
import java.io.ByteArrayOutputStream
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.attribute.FileTime
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.io.path.createDirectories
import kotlin.io.path.exists
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class BundleImportTest {
    @TempDir
    lateinit var scratch: Path

    private val original get() = Bundles.kit.resolve("pndm")
    private val folder get() = scratch.resolve("bundles/mine")

    private fun zip(prefix: String = "", leave: String = "", more: Map<String, ByteArray> = emptyMap()): ByteArray {
        val bytes = ByteArrayOutputStream()
        ZipOutputStream(bytes).use { zip ->
            fun put(name: String, content: ByteArray) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(content)
            }
            for (file in original.toFile().walk().filter { it.isFile }) {
                val path = file.relativeTo(original.toFile()).invariantSeparatorsPath
                if (path != leave) put(prefix + path, file.readBytes())
            }
            more.forEach(::put)
        }
        return bytes.toByteArray()
    }

    private fun import(zip: InputStream, left: () -> Long = { 1L shl 40 }, onBytes: (Long) -> Unit = {}): Bundle {
        folder.parent.createDirectories()
        return BundleImport(folder, leftBytes = left).unzip(zip, onBytes)
    }

    private fun nothingIsLeft() = assertEquals(0, Files.list(folder.parent).use { it.count() })

    @Test
    fun aBundleComesOutOfAZipFromTheTopOrFromAFolder() {
        for (prefix in listOf("", "pndm/")) {
            var told = 0L
            val bundle = import(zip(prefix).inputStream()) { told = it }
            bundle.checkAll()
            assertEquals(folder, bundle.folder)
            assertTrue(told > 1_000_000)
            assertEquals(1, Files.list(folder.parent).use { it.count() })
        }
    }

    @Test
    fun whatWasCheckedIsNotReadAgain() {
        val digests = DigestMemory()
        folder.parent.createDirectories()
        val bundle = BundleImport(folder, digests) { 1L shl 40 }.unzip(zip("pndm/").inputStream())
        for (path in bundle.manifest.files.paths) bundle.locate(path) { error("$path is read again") }
        val unread = folder.resolve("steps/tables.bin")
        unread.writeBytes(ByteArray(Files.size(unread).toInt()))
        Files.setLastModifiedTime(unread, FileTime.fromMillis(1))
        assertFailsWith<NotWhole> { bundle.locate("steps/tables.bin") }
    }

    @Test
    fun namesThatLeadOutsideAreLeftOut() {
        val evil = mapOf("../evil" to byteArrayOf(1), "/evil" to byteArrayOf(1), "__MACOSX/._x" to byteArrayOf(1))
        import(zip(more = evil).inputStream()).checkAll()
        assertFalse(folder.parent.resolve("evil").exists())
    }

    @Test
    fun whatIsNotWholeNeverAppears() {
        val whole = zip()
        assertFailsWith<NotWhole> { import(zip(leave = "steps/tables.bin").inputStream()) }
        nothingIsLeft()
        assertFailsWith<Unreadable> { import(whole.copyOf(whole.size / 2).inputStream()) }
        nothingIsLeft()
        assertFailsWith<NotABundle> { import(byteArrayOf(1, 2, 3).inputStream()) }
        nothingIsLeft()
        assertFailsWith<Cancelled> { import(whole.inputStream()) { if (it > 1_000_000) throw Cancelled() } }
        nothingIsLeft()
        assertFailsWith<NotWhole> { import(zip(more = mapOf("extra.txt" to byteArrayOf(1))).inputStream()) }
        nothingIsLeft()
    }

    @Test
    fun fullStorageIsSaidAsSuch() {
        var left = 12L shl 20
        val full = assertFailsWith<StorageFull> {
            import(zip().inputStream(), left = { left }) { left = (12L shl 20) - it }
        }
        assertTrue(full.leftBytes < 9L shl 20)
        nothingIsLeft()
    }

    @Test
    fun whatAKilledImportLeftIsRemovedAndTheOldBundleStaysUntilTheNewOneIsWhole() {
        import(zip().inputStream())
        val manifest = folder.resolve(FileTable.MANIFEST).readBytes()
        folder.resolveSibling(".mine.importing").createDirectories().resolve("x").writeBytes(byteArrayOf(1))
        assertFailsWith<NotWhole> { import(zip(leave = "steps/tables.bin").inputStream()) }
        assertTrue(manifest.contentEquals(folder.resolve(FileTable.MANIFEST).readBytes()))
        import(zip().inputStream())
        assertEquals(1, Files.list(folder.parent).use { it.count() })
    }
}
