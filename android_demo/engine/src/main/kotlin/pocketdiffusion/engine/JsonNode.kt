package pocketdiffusion.engine

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** A value of a JSON file of the bundle that knows where it stands, so that an error can say so. */
class JsonNode private constructor(
    private val element: JsonElement,
    private val parent: JsonNode?,
    private val name: Any, // of the file, a member or a place in a list: made into a text where something is wrong
) {
    /** The file and the names that lead to this value. */
    val where: String get() = if (parent == null) "$name" else "${parent.where}.$name"
    val isNull get() = element is JsonNull
    val isText get() = (element as? JsonPrimitive)?.isString == true

    /** The member `name`, which has to be there; it can be null. */
    operator fun get(name: String): JsonNode = find(name) ?: fail("it has no $name")

    /** The member `name`, or null where it is not there. */
    fun find(name: String): JsonNode? = members()[name]?.let { JsonNode(it, this, name) }

    /** The member `name` as `read` makes it, or null where it is null or not there. */
    fun <T> optional(name: String, read: (JsonNode) -> T): T? = find(name)?.takeUnless { it.isNull }?.let(read)

    /** The members in the file's order. */
    fun entries(): Map<String, JsonNode> = members().mapValues { (name, value) -> JsonNode(value, this, name) }

    fun items(): List<JsonNode> =
        (element as? JsonArray ?: fail("it is not a list")).mapIndexed { i, value -> JsonNode(value, this, i) }

    fun text(): String = primitive("text").takeIf { it.isString }?.content ?: fail("it is not text")

    /** An integer below 2^53. */
    fun long(): Long {
        val number = number()
        if (number != Math.rint(number) || Math.abs(number) >= WHOLE) fail("it is not an integer")
        return number.toLong()
    }

    fun int(): Int = long().let { if (it == it.toInt().toLong()) it.toInt() else fail("$it is too large") }

    fun number(): Double {
        val content = primitive("number").takeUnless { it.isString }?.content ?: fail("it is not a number")
        return content.takeIf { NUMBER.matches(it) }?.toDoubleOrNull() ?: fail("it is not a number")
    }

    fun boolean(): Boolean = when (primitive("truth value").takeUnless { it.isString }?.content) {
        "true" -> true
        "false" -> false
        else -> fail("it is neither true nor false")
    }

    fun texts(): List<String> = items().map { it.text() }

    fun ints(): IntArray = items().let { list -> IntArray(list.size) { list[it].int() } }

    fun fail(why: String): Nothing = throw Contradiction(where, why)

    private fun members() = element as? JsonObject ?: fail("it is not an object")

    private fun primitive(what: String) = element as? JsonPrimitive ?: fail("it is not a $what")

    companion object {
        private const val WHOLE = 9007199254740992.0
        private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")

        /** Reads the bytes of `path`: UTF-8 without a byte order mark. */
        fun parse(bytes: ByteArray, path: String): JsonNode = try {
            JsonNode(Json.parseToJsonElement(decodeUtf8(bytes, path)), null, path)
        } catch (error: SerializationException) {
            throw Contradiction(path, "it is not JSON: ${error.message?.lineSequence()?.first()}")
        }
    }
}

/** The text of `path`, which must be UTF-8: nothing is replaced. */
fun decodeUtf8(bytes: ByteArray, path: String): String = try {
    Charsets.UTF_8
        .newDecoder()
        .onMalformedInput(CodingErrorAction.REPORT)
        .onUnmappableCharacter(CodingErrorAction.REPORT)
        .decode(ByteBuffer.wrap(bytes))
        .toString()
} catch (_: CharacterCodingException) {
    throw Contradiction(path, "it is not UTF-8")
}
