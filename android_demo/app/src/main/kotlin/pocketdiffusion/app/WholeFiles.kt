package pocketdiffusion.app

import java.io.File
import java.io.IOException

/** A file was not written, as a rule for want of room. */
class NotWritten(val name: String, cause: Throwable) : Exception("$name was not written: ${cause.message}", cause)

/** Puts `bytes` in place of the file's contents, all of them or none. Throws IOException. */
fun File.replaceWith(bytes: ByteArray) {
    val next = File(parentFile, "$name.next")
    try {
        next.writeBytes(bytes)
        if (!next.renameTo(this)) throw IOException("$next cannot be renamed to $name")
    } catch (error: IOException) {
        next.delete()
        throw error
    }
}
