package pocketdiffusion.engine

/** What the graphs get of a prompt; `cut` is its end for which there was no room. */
class Tokens(val ids: IntArray, val mask: IntArray, val cut: String)

/** CLIP's tokenizer, from the bundle's own files (docs/BUNDLE.md, section 6). */
class Tokenizer(private val index: TokenizerIndex, private val characters: CharacterTables, val pairs: BytePairs) {
    private class Sought(val token: AddedToken, val points: IntArray)

    private val typed = index.added.filter { !it.normalized }
        .map { Sought(it, pointsOf(lettersOf(it.text))) }
    private val normalized = index.added.filter { it.normalized }
        .map { Sought(it, pointsOf(characters.normalize(lettersOf(it.text)))) }

    /** Step 8: the beginning token, the text as far as there is room, the end token, the padding. */
    fun input(prompt: String): Tokens {
        val text = expand(prompt)
        val all = encode(text)
        val room = Math.max(index.maxLength - 2, 0)
        val kept = listOf(index.bosId) + all.take(room).map { it.id } + index.eosId
        return Tokens(
            ids = IntArray(index.maxLength) { kept.getOrElse(it) { index.padId } },
            mask = IntArray(index.maxLength) { if (it < kept.size) 1 else 0 },
            cut = if (all.size > room) text.substring(all[room].at) else "",
        )
    }

    /** The ids of the text alone. */
    fun ids(prompt: String): List<Int> = encode(expand(prompt)).map { it.id }

    /** Step 1: tokens of several vectors are spelled out. */
    private fun expand(prompt: String): String {
        val expanding = index.added.filter { it.expansion.isNotEmpty() }
        if (expanding.isEmpty()) return prompt
        var text = prompt
        for (id in encode(prompt).map { it.id }.distinct()) {
            for (token in expanding) if (token.id == id) text = text.replace(token.text, token.expansion)
        }
        return text
    }

    private fun encode(prompt: String): List<Token> {
        val tokens = ArrayList<Token>()
        search(lettersOf(prompt), typed, tokens) { stretch ->
            search(characters.normalize(stretch), normalized, tokens) { inner ->
                split(inner) { word -> tokens += pairs.encode(word) }
            }
        }
        return tokens
    }

    /** Step 2: added tokens become their ids, and each stretch between them goes to `between`. */
    private fun search(
        text: List<Letter>,
        all: List<Sought>,
        tokens: MutableList<Token>,
        between: (List<Letter>) -> Unit,
    ) {
        fun isWord(at: Int) = at in text.indices && characters.isWord(text[at].point)
        fun isSpace(at: Int) = characters.isSpace(text[at].point)
        var done = 0
        var at = 0
        while (at < text.size) {
            val found = all.filter { startsAt(text, it.points, at) }.maxByOrNull { it.points.size }
            if (found == null) {
                at++
                continue
            }
            var from = at
            var to = at + found.points.size
            at = to
            if (found.token.singleWord && (isWord(from - 1) || isWord(to))) continue
            if (found.token.takesSpaceBefore) while (from > done && isSpace(from - 1)) from--
            if (found.token.takesSpaceBehind) while (to < text.size && isSpace(to)) to++
            if (from > done) between(text.subList(done, from))
            tokens += Token(found.token.id, text[from].at)
            done = to
            at = to
        }
        if (done < text.size) between(text.subList(done, text.size))
    }

    /** Step 4: the words of a stretch. */
    private fun split(text: List<Letter>, word: (List<Letter>) -> Unit) {
        fun run(from: Int, isOne: (Int) -> Boolean): Int {
            var to = from
            while (to < text.size && isOne(text[to].point)) to++
            return to
        }
        var at = 0
        while (at < text.size) {
            val point = text[at].point
            val fixed = FIXED.firstOrNull { startsAt(text, it.points, at) }
            val begin = at
            if (fixed != null) {
                for (length in fixed.lengths) {
                    word(text.subList(at, at + length))
                    at += length
                }
                continue
            }
            at = when {
                characters.isLetter(point) -> run(at, characters::isLetter)
                characters.isDigit(point) -> at + 1
                characters.isOther(point) -> run(at, characters::isOther)
                else -> at + 1
            }
            if (!characters.isSpace(point)) word(text.subList(begin, at))
        }
    }

    /** A text that is a word, or several, wherever it stands. */
    private class Fixed(words: List<String>) {
        val points = pointsOf(lettersOf(words.joinToString("")))
        val lengths = words.map { it.length }
    }

    companion object {
        private val MARKS = listOf("startoftext", "endoftext").map { Fixed(listOf("<|", it, "|>")) }
        private val ENDINGS = listOf("'s", "'t", "'re", "'ve", "'m", "'ll", "'d").map { Fixed(listOf(it)) }
        private val FIXED = MARKS + ENDINGS

        fun open(bundle: Bundle, index: TokenizerIndex) = Tokenizer(
            index,
            CharacterTables(bundle.json(index.characters)),
            BytePairs(bundle.json(index.vocabulary), bundle.text(index.merges), index.unkId),
        )

        private fun pointsOf(text: List<Letter>) = IntArray(text.size) { text[it].point }

        private fun startsAt(text: List<Letter>, points: IntArray, at: Int): Boolean {
            val isWithin = points.isNotEmpty() && at + points.size <= text.size
            return isWithin && points.indices.all { text[at + it].point == points[it] }
        }
    }
}
