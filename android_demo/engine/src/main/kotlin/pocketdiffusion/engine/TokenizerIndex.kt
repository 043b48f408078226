package pocketdiffusion.engine

/** A text that is looked for before all else, and becomes its own id. */
class AddedToken(
    val text: String,
    val id: Int,
    val normalized: Boolean,
    val takesSpaceBefore: Boolean,
    val takesSpaceBehind: Boolean,
    val singleWord: Boolean,
    /** Not empty for a textual inversion of several vectors. */
    val expansion: String,
)

/** One of the pipeline file's `tokenizers`. */
class TokenizerIndex(
    val vocabulary: String,
    val merges: String,
    val characters: String,
    val maxLength: Int,
    val bosId: Int,
    val eosId: Int,
    val padId: Int,
    val unkId: Int?,
    val added: List<AddedToken>,
) {
    companion object {
        fun read(node: JsonNode): TokenizerIndex {
            val kind = node["kind"].text()
            if (kind != "clip") throw Refusal("the tokenizer kind $kind")
            return TokenizerIndex(
                vocabulary = node["vocab"].text(),
                merges = node["merges"].text(),
                characters = node["characters"].text(),
                maxLength = node["max_length"].int(),
                bosId = node["bos_id"].int(),
                eosId = node["eos_id"].int(),
                padId = node["pad_id"].int(),
                unkId = node.optional("unk_id") { it.int() },
                added = node.optional("added_tokens") { it.items().map(::readAdded) }.orEmpty(),
            )
        }

        private fun readAdded(node: JsonNode) = AddedToken(
            text = node["text"].text(),
            id = node["id"].int(),
            normalized = node["normalized"].boolean(),
            takesSpaceBefore = node["lstrip"].boolean(),
            takesSpaceBehind = node["rstrip"].boolean(),
            singleWord = node["single_word"].boolean(),
            expansion = node.optional("expansion") { it.text() } ?: "",
        )
    }
}
