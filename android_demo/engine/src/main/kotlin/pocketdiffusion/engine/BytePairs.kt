package pocketdiffusion.engine

/** Byte-level byte-pair encoding of one word (docs/BUNDLE.md, section 6, steps 5 to 7). */
class BytePairs(vocabulary: JsonNode, merges: String, private val unkId: Int?) {
    /** The id of each piece. */
    val ids: Map<String, Int> = vocabulary.entries().mapValues { (_, id) -> id.int() }

    /** The lines of the merges file, each with its place. */
    val ranks: Map<String, Int>

    init {
        val lines = merges.split("\n")
        val begin = if (lines.first().startsWith("#version")) 1 else 0
        val all = LinkedHashMap<String, Int>()
        for (i in begin until lines.size) if (lines[i].isNotEmpty()) all.getOrPut(lines[i]) { i }
        ranks = all
    }

    /** The ids of a word, each with the place of its first character. */
    fun encode(word: List<Letter>): List<Token> {
        val pieces = ArrayList<String>()
        val places = ArrayList<Int>() // of each byte in the prompt
        for (letter in word) {
            for (byte in String(Character.toChars(letter.point)).toByteArray()) {
                pieces += "${CHARACTERS[byte.toInt() and 0xff]}"
                places += letter.at
            }
        }
        pieces[pieces.size - 1] += END
        merge(pieces)
        val tokens = ArrayList<Token>()
        var byte = 0
        for (piece in pieces) {
            val id = ids[piece] ?: unkId
            if (id != null) tokens += Token(id, places[byte])
            byte += piece.length // a character of a piece is a byte; only the last piece has END as well
        }
        return tokens
    }

    private fun merge(pieces: MutableList<String>) {
        while (true) {
            var best = Int.MAX_VALUE
            var place = -1
            for (i in 0 until pieces.size - 1) {
                val rank = ranks["${pieces[i]} ${pieces[i + 1]}"] ?: continue
                if (rank < best) {
                    best = rank
                    place = i
                }
            }
            if (place < 0) return
            pieces[place] += pieces.removeAt(place + 1)
        }
    }

    companion object {
        const val END = "</w>"

        /** The character of each byte. */
        val CHARACTERS: CharArray = CharArray(256).also { table ->
            var extra = 0x100
            for (byte in table.indices) {
                val itself = byte in 33..126 || byte in 161..172 || byte in 174..255
                table[byte] = (if (itself) byte else extra++).toChar()
            }
        }
    }
}

/** An id, and the place in the prompt of the first character that it is made of. */
class Token(val id: Int, val at: Int)
