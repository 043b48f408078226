package pocketdiffusion.engine

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class FileTableTest {
    private val sha = "0".repeat(64)

    private fun table(vararg files: Pair<String, String>): FileTable {
        val entries = files.joinToString { (path, role) ->
            "\"$path\": {\"sha256\": \"$sha\", \"size\": 1, \"role\": \"$role\"}"
        }
        val passedOver = """{"files": ["._*", "icon\r", "a?c"], "folders": ["__macosx"]}"""
        val json = """{"files": {$entries}, "passed_over": $passedOver}"""
        return FileTable.read(JsonNode.parse(json.toByteArray(), "manifest.json"))
    }

    @Test
    fun pathsAreOfPlainLettersAndStayInside() {
        val bad = listOf(
            "../x", "/x", "a//b", ".x", "-x", "x.", "a/.b", "ä", "a b", "", "a\\\\b", "C:",
            "a/".repeat(120) + "b",
        )
        for (path in bad) assertFailsWith<Contradiction>(path) { table(path to "runtime") }
        table("onnx/unet/model.onnx_data" to "runtime", "_a/B-c.d" to "report")
        assertFailsWith<Contradiction> { table("a/b" to "runtime", "A/c" to "runtime") }
        assertFailsWith<Contradiction> { table("a" to "runtime", "a/b" to "runtime") }
        assertFailsWith<Contradiction> { table("Manifest.json" to "runtime") }
    }

    @Test
    fun whatOthersLeaveIsPassedOver() {
        val table = table("a/abc" to "runtime")
        for (path in listOf(
            "._y",
            "b/._Y",
            "Icon\r",
            "x/ABC",
            "__MACOSX/x/y",
            "x/__macosx/y",
        )) {
            assertTrue(table.isPassedOver(path), path)
        }
        for (path in listOf(
            "x",
            "icon",
            "x/abbc",
            "__macosx",
            "._/x",
            "x/ac",
        )) {
            assertFalse(table.isPassedOver(path), path)
        }
        assertEquals("[a/abc is missing]", "${table.faults(emptyMap())}") // a path of the table never is
    }

    @Test
    fun ofRolesBesideRuntimeAllFilesAreThereOrNone() {
        val table = table(
            "a" to "runtime",
            "p" to "proof",
            "q" to "proof",
            "r" to "report",
            "s" to "later",
            "t" to "later",
        )
        assertEquals("[]", "${table.faults(mapOf("a" to 1L))}")
        assertEquals("[p is missing]", "${table.faults(mapOf("a" to 1L, "q" to 1L))}")
        assertEquals("[t is missing]", "${table.faults(mapOf("a" to 1L, "s" to 1L))}") // of a role of a later version
        assertEquals("[a is missing]", "${table.faults(mapOf("p" to 1L, "q" to 1L))}")
        assertEquals("[a has another size than the manifest says]", "${table.faults(mapOf("a" to 2L))}")
        assertEquals("[a is a link]", "${table.faults(mapOf("a" to null))}")
    }

    @Test
    fun jsonSaysWhereItIsWrong() {
        fun parse(text: String) = JsonNode.parse(text.toByteArray(), "file")
        val node = parse("""{"a": {"b": [1, 2.5, "3", true, null]}}""")
        val list = node["a"]["b"].items()
        val missing = assertFailsWith<Contradiction> { node["a"]["c"] }
        assertEquals("file.a: it has no c. Export the model again.", missing.message)
        assertEquals(1, list[0].int())
        assertEquals(2.5, list[1].number())
        for (wrong in listOf({
            list[1].int()
        }, { list[2].int() }, { list[3].number() }, { list[0].text() }, { list[4].text() })) {
            assertTrue(assertFailsWith<Contradiction> { wrong() }.where.startsWith("file.a.b."))
        }
        for (bad in listOf("{", "{\"a\": }", "")) assertFailsWith<Contradiction>(bad) { parse(bad)["a"].text() }
        assertFailsWith<Contradiction> { parse("{\"a\": nan}")["a"].number() }
        assertFailsWith<Contradiction> { JsonNode.parse(byteArrayOf('"'.code.toByte(), -1, '"'.code.toByte()), "file") }
    }
}
