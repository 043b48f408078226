package pocketdiffusion.engine

import org.junit.jupiter.api.io.TempDir
import java.io.FilterInputStream
import java.io.IOException
import java.io.InputStream
import java.net.InetAddress
import java.net.ServerSocket
import java.nio.file.Files
import java.nio.file.Path
import kotlin.concurrent.thread
import kotlin.io.path.createDirectories
import kotlin.io.path.exists
import kotlin.io.path.readBytes
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class BundleDownloadTest {
    @TempDir
    lateinit var scratch: Path

    private val original get() = Bundles.kit.resolve("pndm")
    private val folder get() = scratch.resolve("bundles/mine").also { it.parent.createDirectories() }
    private val left = { 1L shl 40 }

    /** A server whose connections break after `most` bytes altogether. */
    private inner class Shaky(var most: Long, val change: (String, ByteArray) -> ByteArray = { _, bytes -> bytes }) :
        Remote {
        val asked = ArrayList<Pair<String, Long>>()

        override fun open(path: String, from: Long): RemoteFile {
            asked += path to from
            val bytes = change(path, original.resolve(path).readBytes())
            val stream = bytes.copyOfRange(from.toInt(), bytes.size).inputStream()
            return RemoteFile(if (path.startsWith("manifest")) stream else Breaking(stream), from)
        }

        private inner class Breaking(stream: InputStream) : FilterInputStream(stream) {
            override fun read(bytes: ByteArray, offset: Int, length: Int): Int {
                if (most <= 0) throw IOException("the connection was lost")
                return super.read(bytes, offset, Math.min(length.toLong(), most).toInt()).also {
                    most -= Math.max(it, 0)
                }
            }
        }
    }

    @Test
    fun aDownloadThatBreaksGoesOnFromThere() {
        val remote = Shaky(most = 1_000_000)
        val broken = assertFailsWith<DownloadBroken> { BundleDownload(remote, folder, leftBytes = left).load() }
        assertEquals(1_000_000, broken.doneBytes)
        assertFalse(folder.exists())
        remote.asked.clear()
        remote.most = Long.MAX_VALUE
        var last = 0L
        val bundle = BundleDownload(remote, folder, leftBytes = left).load { done, total ->
            assertTrue(done in last..total)
            last = done
        }
        assertEquals(listOf(broken.path), remote.asked.filter { it.second > 0 }.map { it.first })
        bundle.checkAll()
        val runtime = bundle.manifest.files.paths.filter { bundle.manifest.files[it]!!.role == Role.RUNTIME }
        assertEquals(runtime.sumOf { bundle.manifest.files[it]!!.size }, last)
        assertFailsWith<ProofNotInstalled> { bundle.read("proof.json") }
        assertEquals(1, Files.list(folder.parent).use { it.count() })
    }

    @Test
    fun aFileThatArrivesWrongIsLoadedAgain() {
        var wrong = true
        val remote = Shaky(Long.MAX_VALUE) { path, bytes ->
            if (wrong && path == "steps/tables.bin") ByteArray(bytes.size) else bytes
        }
        val error = assertFailsWith<NotWhole> { BundleDownload(remote, folder, leftBytes = left).load() }
        assertEquals("steps/tables.bin", error.faults.single().path)
        wrong = false
        BundleDownload(remote, folder, leftBytes = left).load().checkAll()
    }

    @Test
    fun whatCannotBeLoadedIsSaid() {
        val forged = Shaky(Long.MAX_VALUE) { path, bytes -> if (path == "manifest.json") bytes + 32 else bytes }
        assertFailsWith<NotWhole> { BundleDownload(forged, folder, leftBytes = left).load() }
        val remote = Shaky(Long.MAX_VALUE)
        assertFailsWith<StorageFull> { BundleDownload(remote, folder, leftBytes = { 9L shl 20 }).load() }
        assertFailsWith<Cancelled> {
            BundleDownload(remote, folder, leftBytes = left).load { done, _ -> if (done > 500_000) throw Cancelled() }
        }
        assertFalse(folder.exists())
    }

    @Test
    fun aServerIsAskedForTheRest() {
        ServerSocket(0, 5, InetAddress.getLoopbackAddress()).use { server ->
            thread(isDaemon = true) { repeat(3) { answer(server) } }
            val remote = HttpRemote("http://127.0.0.1:${server.localPort}/some/")
            assertEquals("0123456789", String(remote.open("ten", 0).bytes.readBytes()))
            val rest = remote.open("ten", 4)
            assertEquals(4L to "456789", rest.from to String(rest.bytes.readBytes()))
            assertTrue("404" in assertFailsWith<IOException> { remote.open("nothing", 0) }.message!!)
        }
    }

    /** Answers one request as a web server does. */
    private fun answer(server: ServerSocket) = server.accept().use { socket ->
        val reader = socket.getInputStream().bufferedReader()
        val lines = generateSequence { reader.readLine() }.takeWhile { it.isNotEmpty() }.toList()
        val from = lines.firstOrNull { it.startsWith("Range: bytes=") }?.filter { it.isDigit() }?.toInt()
        val (status, body) = when {
            "/some/ten" !in lines[0] -> "404 Not Found" to ""
            from == null -> "200 OK" to "0123456789"
            else -> "206 Partial Content" to "0123456789".substring(from)
        }
        val head = "HTTP/1.1 $status\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n"
        socket.getOutputStream().write((head + body).toByteArray())
    }
}
