package pocketdiffusion.engine

/** What an input of a call is made of. */
sealed class Source {
    /** The names of the values that it takes. */
    open val names: List<String> get() = emptyList()

    class Value(name: String) : Source() {
        override val names = listOf(name)
    }

    class Concat(override val names: List<String>, val axis: Int) : Source()

    class Sum(override val names: List<String>) : Source()

    class Constant(val ref: ArrayRef) : Source()

    companion object {
        fun read(node: JsonNode): Source {
            if (node.isText) return Value(node.text())
            node.find("concat")?.let { return Concat(it.texts(), node["axis"].int()) }
            node.find("sum")?.let { return Sum(it.texts()) }
            node.find("constant")?.let { return Constant(ArrayRef.read(it)) }
            throw Refusal("an input of a kind of its own, ${node.where}")
        }
    }
}

/** One call of a graph: what its inputs are, and which values its outputs become. */
class Call(val graph: String, val inputs: Map<String, Source>, val outputs: Map<String, String>)

/** Calls that are made in order, where every host value in `needs` is there. */
class Stage(val name: String, val needs: List<String>, val calls: List<Call>) {
    companion object {
        fun read(node: JsonNode): Stage {
            val calls = node["calls"].items().map { call ->
                Call(
                    call["graph"].text(),
                    call["inputs"].entries().mapValues { (_, source) -> Source.read(source) },
                    call["outputs"].entries().mapValues { (_, value) -> value.text() },
                )
            }
            return Stage(node["stage"].text(), node.optional("when") { it.texts() }.orEmpty(), calls)
        }
    }
}
