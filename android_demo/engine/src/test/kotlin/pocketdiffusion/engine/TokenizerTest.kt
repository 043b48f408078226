package pocketdiffusion.engine

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class TokenizerTest {
    private val ascii = CharacterTables(
        parse(
            """{"letters": [97, 122], "digits": [48, 57], "spaces": [32, 32], "words": [48, 57, 95, 95, 97, 122],
            "lower": [65, 90, 1, 32], "lower_several": [], "classes": [], "decompositions": [], "compositions": []}""",
        ),
    )

    private fun parse(json: String) = JsonNode.parse(json.toByteArray(), "test")

    private fun added(
        text: String,
        id: Int,
        expansion: String = "",
        normalized: Boolean = false,
        before: Boolean = false,
        behind: Boolean = false,
        word: Boolean = false,
    ) = AddedToken(text, id, normalized, before, behind, word, expansion)

    private fun index(added: List<AddedToken>, length: Int = 5, pad: Int = 1002) =
        TokenizerIndex("", "", "", length, 1000, 1001, pad, null, added)

    private fun letters(): Tokenizer {
        val vocabulary = ('a'..'z').plus(',').flatMapIndexed { i, c -> listOf("\"$c\": $i", "\"$c</w>\": ${100 + i}") }
        val pairs =
            BytePairs(parse("{${vocabulary.joinToString()}, \"ab</w>\": 300}"), "#version: 0.2\na b</w>\n", null)
        val all = listOf(
            added("<c>", 200, expansion = "<c> <c>1"),
            added("<c>1", 201),
            added("Dog", 202, normalized = true, word = true),
            added("!", 203, before = true, behind = true),
        )
        return Tokenizer(index(all), ascii, pairs)
    }

    @Test
    fun addedTokensAndExpansions() {
        val tokenizer = letters()
        assertEquals(listOf(300, 300), tokenizer.ids("AB ab"))
        assertEquals(listOf(123, 200, 201, 126, 200, 201), tokenizer.ids("x <c>, <c>"))
        assertEquals(listOf(202, 3, 14, 6, 118), tokenizer.ids("doG dogs"))
        assertEquals(listOf(100, 203, 101), tokenizer.ids("a ! b"))
        assertEquals(listOf(100), tokenizer.ids("a?")) // not in the vocabulary, and no unk_id
    }

    @Test
    fun whatDoesNotFitIsTold() {
        val tokens = letters().input("a <c>1  B z!")
        assertContentEquals(intArrayOf(1000, 100, 201, 101, 1001), tokens.ids)
        assertContentEquals(intArrayOf(1, 1, 1, 1, 1), tokens.mask)
        assertEquals("z!", tokens.cut)
        assertContentEquals(intArrayOf(1000, 100, 1001, 1002, 1002), letters().input("a").ids)
        assertContentEquals(intArrayOf(1, 1, 1, 0, 0), letters().input("a").mask)
    }

    @Test
    fun hangulIsComposedByRule() {
        val points = listOf(0x1112, 0x1161, 0x11ab, 0xac00, 0x11a8).mapIndexed { at, point -> Letter(point, at) }
        assertEquals(listOf(Letter(0xd55c, 0), Letter(0xac01, 3)), ascii.nfc(points))
    }

    @Test
    fun aLoneSurrogateIsNoText() {
        assertEquals(
            listOf(Letter(0xfffd, 0), Letter(0x1f34e, 1), Letter(0xfffd, 3)),
            lettersOf("\ud800\ud83c\udf4e\udc00"),
        )
    }

    @Test
    fun theGoldenPromptsAreThoseOfTransformers() {
        val golden = Bundles.golden("tokenizer.json")
        val bundle = Bundle.open(Bundles.emoji)
        val files = bundle.pipeline(listOf("onnx")).tokenizers[0]
        val characters = CharacterTables(bundle.json(files.characters))
        val pairs = BytePairs(bundle.json(files.vocabulary), bundle.text(files.merges), null)
        val marks = mapOf(49406 to "<|startoftext|>", 49407 to "<|endoftext|>", 0 to "!")
        val cases = golden["cases"].items().groupBy { it["pad_id"].int() }
        assertTrue(cases.size == 2 && cases.values.all { it.size >= 200 })
        for ((pad, prompts) in cases) {
            val all = setOf(49406, 49407, pad).map { added(marks.getValue(it), it) }
            val told = TokenizerIndex("", "", "", golden["max_length"].int(), 49406, 49407, pad, null, all)
            val tokenizer = Tokenizer(told, characters, pairs)
            for (case in prompts) {
                val tokens = tokenizer.input(case["prompt"].text())
                val ids = case["ids"].ints()
                assertContentEquals(IntArray(told.maxLength) { ids.getOrElse(it) { pad } }, tokens.ids, case.where)
                assertEquals(case["cut"].text(), tokens.cut, case.where)
            }
        }
    }
}
