package pocketdiffusion.engine

import java.io.ByteArrayOutputStream
import java.io.DataOutputStream
import java.io.EOFException
import java.nio.ByteBuffer
import java.util.zip.CRC32
import java.util.zip.DataFormatException
import java.util.zip.DeflaterOutputStream
import java.util.zip.Inflater

/** PNG files of 8 bits a channel. What is written says how the picture was made. */
object Png {
    private val MAGIC = byteArrayOf(-119, 80, 78, 71, 13, 10, 26, 10)
    private const val RGB = 2
    private val CHANNELS = mapOf(0 to 1, RGB to 3, 4 to 2, 6 to 4) // by the colour type; 3, of palettes, is not read

    /** A PNG whose text chunks are `facts`, such as the prompt and the seed. */
    fun write(picture: Picture, facts: Map<String, String> = emptyMap()): ByteArray {
        val bytes = ByteArrayOutputStream()
        bytes.write(MAGIC)
        writeChunk(bytes, "IHDR") {
            writeInt(picture.width)
            writeInt(picture.height)
            write(byteArrayOf(8, RGB.toByte(), 0, 0, 0))
        }
        for ((key, text) in facts) {
            writeChunk(bytes, "iTXt") {
                write(key.toByteArray(Charsets.ISO_8859_1))
                write(ByteArray(5)) // end of the key, not compressed, no language, no translation
                write(text.toByteArray())
            }
        }
        writeChunk(bytes, "IDAT") {
            val packed = ByteArrayOutputStream()
            DeflaterOutputStream(packed).use { it.write(filter(picture)) }
            write(packed.toByteArray())
        }
        writeChunk(bytes, "IEND") {}
        return bytes.toByteArray()
    }

    /** Throws Contradiction, which names `where`, for what is not a PNG that can be read here. */
    fun read(bytes: ByteArray, where: String): Picture {
        val chunks = readChunks(bytes, where)
        val header = chunks.firstOrNull { it.first == "IHDR" }?.second?.takeIf { it.remaining() == 13 }
        header ?: throw Contradiction(where, "it is not a PNG")
        val width = header.getInt(0)
        val height = header.getInt(4)
        val channels = CHANNELS[header.get(9).toInt()]
        if (header.get(8).toInt() != 8 || channels == null || header.get(12).toInt() != 0) {
            throw Contradiction(where, "it is a PNG of a kind that is not read here")
        }
        val packed = inflate(chunks, (width * channels + 1) * height, where)
        val levels = unfilter(packed, width * channels, height, channels)
        if (channels == 3) return Picture(width, height, levels)
        val rgba = ByteArray(width * height * 4) { i ->
            val pixel = i / 4 * channels
            when {
                i % 4 == 3 -> if (channels % 2 == 0) levels[pixel + channels - 1] else -1
                channels < 3 -> levels[pixel]
                else -> levels[pixel + i % 4]
            }
        }
        return Picture(width, height, ImageToImage.overWhite(rgba))
    }

    /** The text chunks of a PNG. */
    fun readFacts(bytes: ByteArray, where: String): Map<String, String> =
        readChunks(bytes, where).filter { it.first == "iTXt" }.associate { (_, data) ->
            val all = ByteArray(data.remaining()).also { data.duplicate().get(it) }
            val end = all.indexOf(0)
            String(all, 0, end, Charsets.ISO_8859_1) to String(all, end + 5, all.size - end - 5)
        }

    private fun writeChunk(bytes: ByteArrayOutputStream, name: String, content: DataOutputStream.() -> Unit) {
        val body = ByteArrayOutputStream()
        DataOutputStream(body).use {
            it.writeBytes(name)
            it.content()
        }
        val crc = CRC32().apply { update(body.toByteArray()) }
        DataOutputStream(bytes).apply {
            writeInt(body.size() - name.length)
            write(body.toByteArray())
            writeInt(crc.value.toInt())
        }
    }

    /** Each row as its differences by the filter whose sum of sizes is least, with the filter's number before it. */
    private fun filter(picture: Picture): ByteArray {
        val run = picture.width * 3
        val result = ByteArray((run + 1) * picture.height)
        for (y in 0 until picture.height) {
            val at = y * (run + 1)
            var best = Int.MAX_VALUE
            for (kind in 0..4) {
                val row = ByteArray(run) { i ->
                    (picture.rgb[y * run + i] - guess(picture.rgb, kind, run, y, i, 3)).toByte()
                }
                var sum = 0
                for (difference in row) sum += Math.abs(difference.toInt())
                if (sum < best) {
                    best = sum
                    result[at] = kind.toByte()
                    row.copyInto(result, at + 1)
                }
            }
        }
        return result
    }

    private fun unfilter(packed: ByteArray, run: Int, height: Int, channels: Int): ByteArray {
        val levels = ByteArray(run * height)
        for (y in 0 until height) {
            val kind = packed[y * (run + 1)].toInt()
            for (i in 0 until run) {
                val difference = packed[y * (run + 1) + 1 + i]
                levels[y * run + i] = (difference + guess(levels, kind, run, y, i, channels)).toByte()
            }
        }
        return levels
    }

    /** What a filter foretells of byte i of row y from the bytes on its left and above. */
    private fun guess(levels: ByteArray, kind: Int, run: Int, y: Int, i: Int, channels: Int): Int {
        val left = if (i < channels) 0 else levels[y * run + i - channels].toInt() and 0xff
        val up = if (y == 0) 0 else levels[(y - 1) * run + i].toInt() and 0xff
        val corner = if (i < channels || y == 0) 0 else levels[(y - 1) * run + i - channels].toInt() and 0xff
        return when (kind) {
            1 -> left
            2 -> up
            3 -> (left + up) / 2
            4 -> paeth(left, up, corner)
            else -> 0
        }
    }

    private fun paeth(left: Int, up: Int, corner: Int): Int {
        val a = Math.abs(up - corner)
        val b = Math.abs(left - corner)
        val c = Math.abs(left + up - 2 * corner)
        return when {
            a <= b && a <= c -> left
            b <= c -> up
            else -> corner
        }
    }

    private fun readChunks(bytes: ByteArray, where: String): List<Pair<String, ByteBuffer>> {
        val isPng = bytes.size >= MAGIC.size && bytes.copyOf(MAGIC.size).contentEquals(MAGIC)
        if (!isPng) throw Contradiction(where, "it is not a PNG")
        val chunks = ArrayList<Pair<String, ByteBuffer>>()
        val buffer = ByteBuffer.wrap(bytes)
        var at = MAGIC.size
        while (at + 12 <= bytes.size) {
            val length = buffer.getInt(at)
            if (length < 0 || length > bytes.size - at - 12) throw Contradiction(where, "it is cut off")
            val data = ByteBuffer.wrap(bytes, at + 8, length).slice()
            chunks += String(bytes, at + 4, 4, Charsets.ISO_8859_1) to data
            at += 12 + length
        }
        return chunks
    }

    private fun inflate(chunks: List<Pair<String, ByteBuffer>>, size: Int, where: String): ByteArray {
        val result = ByteArray(size)
        val inflater = Inflater()
        try {
            var done = 0
            for ((_, data) in chunks.filter { it.first == "IDAT" }) {
                inflater.setInput(ByteArray(data.remaining()).also { data.duplicate().get(it) })
                while (done < size) {
                    val count = inflater.inflate(result, done, size - done)
                    if (count == 0) break
                    done += count
                }
            }
            if (done < size) throw EOFException()
        } catch (_: DataFormatException) {
            throw Contradiction(where, "it is damaged")
        } catch (_: EOFException) {
            throw Contradiction(where, "it is cut off")
        } finally {
            inflater.end()
        }
        return result
    }
}
