package pocketdiffusion.engine

/** A character, and the place in the prompt, in UTF-16 units, that it came from. */
data class Letter(val point: Int, val at: Int)

/**
 * What must be known of Unicode, from the bundle: no table of this system can change an id (docs/BUNDLE.md, section 6).
 */
class CharacterTables(tables: JsonNode) {
    private val letters = tables["letters"].ints()
    private val digits = tables["digits"].ints()
    private val spaces = tables["spaces"].ints()
    private val words = tables["words"].ints()
    private val classes = tables["classes"].ints()
    private val lowered = HashMap<Int, IntArray>()
    private val decompositions = readSeveral(tables["decompositions"])
    private val compositions = HashMap<Long, Int>()

    init {
        val lower = tables["lower"].ints()
        for (i in lower.indices step 4) {
            for (point in lower[i]..lower[i + 1] step lower[i + 2]) lowered[point] = intArrayOf(point + lower[i + 3])
        }
        lowered += readSeveral(tables["lower_several"])
        val pairs = tables["compositions"].ints()
        for (i in pairs.indices step 3) compositions[pair(pairs[i], pairs[i + 1])] = pairs[i + 2]
    }

    fun isLetter(point: Int) = find(letters, 2, point) >= 0

    fun isDigit(point: Int) = find(digits, 2, point) >= 0

    fun isSpace(point: Int) = find(spaces, 2, point) >= 0

    fun isWord(point: Int) = find(words, 2, point) >= 0

    /** Neither white space nor letter nor digit. */
    fun isOther(point: Int) = !isSpace(point) && !isLetter(point) && !isDigit(point)

    /** Step 3: NFC, one space for each run of white space, lower case. */
    fun normalize(text: List<Letter>): List<Letter> {
        val result = ArrayList<Letter>()
        var spaced = false
        for (letter in compose(order(decompose(text)))) {
            val isSpace = isSpace(letter.point)
            if (!isSpace) {
                val lower = lowered[letter.point]
                if (lower == null) result += letter else lower.mapTo(result) { Letter(it, letter.at) }
            } else if (!spaced) {
                result += Letter(' '.code, letter.at)
            }
            spaced = isSpace
        }
        return result
    }

    /** Unicode NFC (Standard Annex 15). */
    fun nfc(text: List<Letter>): List<Letter> = compose(order(decompose(text)))

    private fun decompose(text: List<Letter>): List<Letter> = text.flatMap { letter ->
        val s = letter.point - SYLLABLES
        val parts = when {
            s !in 0 until SYLLABLE_COUNT -> decompositions[letter.point]
            s % TRAILS == 0 -> leadAndVowel(s)
            else -> leadAndVowel(s) + (TRAILS_AT + s % TRAILS)
        }
        parts?.map { Letter(it, letter.at) } ?: listOf(letter)
    }

    /** Each run of characters of a class other than 0 is sorted by class; those of one class stay in their order. */
    private fun order(text: List<Letter>): List<Letter> {
        val result = ArrayList<Letter>(text.size)
        var start = 0
        while (start < text.size) {
            var end = start
            while (end < text.size && classOf(text[end].point) != 0) end++
            result += text.subList(start, end).sortedBy { classOf(it.point) }
            if (end < text.size) result += text[end]
            start = end + 1
        }
        return result
    }

    private fun compose(text: List<Letter>): List<Letter> {
        val result = ArrayList<Letter>(text.size)
        var starter = -1 // its place in `result`
        var left = -1 // the class of the last character that stayed behind the starter; -1: none did
        for (letter in text) {
            val own = classOf(letter.point)
            val joined = if (starter >= 0 && left < own) join(result[starter].point, letter.point) else null
            if (joined != null) {
                result[starter] = Letter(joined, result[starter].at)
            } else {
                result += letter
                left = if (own == 0) -1 else own
                if (own == 0) starter = result.size - 1
            }
        }
        return result
    }

    private fun join(a: Int, b: Int): Int? {
        val lead = a - LEADS_AT
        val vowel = b - VOWELS_AT
        val trail = b - TRAILS_AT
        return when {
            lead in 0 until LEADS && vowel in 0 until VOWELS -> SYLLABLES + (lead * VOWELS + vowel) * TRAILS
            isWithoutTrail(a) && trail in 1 until TRAILS -> a + trail
            else -> compositions[pair(a, b)]
        }
    }

    private fun classOf(point: Int): Int = find(classes, 3, point).let { if (it < 0) 0 else classes[it + 2] }

    private companion object {
        const val SYLLABLES = 0xac00
        const val LEADS_AT = 0x1100
        const val VOWELS_AT = 0x1161
        const val TRAILS_AT = 0x11a7
        const val LEADS = 19
        const val VOWELS = 21
        const val TRAILS = 28
        const val SYLLABLE_COUNT = LEADS * VOWELS * TRAILS

        fun leadAndVowel(s: Int) = intArrayOf(LEADS_AT + s / (VOWELS * TRAILS), VOWELS_AT + s / TRAILS % VOWELS)

        fun isWithoutTrail(point: Int) =
            point - SYLLABLES in 0 until SYLLABLE_COUNT && (point - SYLLABLES) % TRAILS == 0

        fun pair(a: Int, b: Int): Long = a.toLong() shl 32 or b.toLong()

        fun readSeveral(node: JsonNode): Map<Int, IntArray> =
            node.items().associate { entry -> entry.ints().let { it[0] to it.copyOfRange(1, it.size) } }

        /** Where the entry [first, last, ...] of `size` numbers begins that holds the character, or -1. */
        fun find(entries: IntArray, size: Int, point: Int): Int {
            var low = 0
            var high = entries.size / size - 1
            while (low <= high) {
                val middle = (low + high) / 2
                when {
                    point < entries[middle * size] -> high = middle - 1
                    point > entries[middle * size + 1] -> low = middle + 1
                    else -> return middle * size
                }
            }
            return -1
        }
    }
}

/** The characters of a text; a lone surrogate becomes U+FFFD. */
fun lettersOf(text: String): List<Letter> {
    val letters = ArrayList<Letter>(text.length)
    var at = 0
    while (at < text.length) {
        val point = text.codePointAt(at)
        letters += Letter(if (point in 0xd800..0xdfff) 0xfffd else point, at)
        at += Character.charCount(point)
    }
    return letters
}
