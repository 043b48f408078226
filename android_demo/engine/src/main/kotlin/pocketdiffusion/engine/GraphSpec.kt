package pocketdiffusion.engine

/** The length of an axis: a number, or a name where the caller chooses it. */
class Axis private constructor(val length: Int, val name: String?) {
    override fun toString() = name ?: "$length"

    companion object {
        fun read(node: JsonNode) = if (node.isText) Axis(0, node.text()) else Axis(node.int(), null)
    }
}

/** One input or output of a graph. */
class TensorSpec(val name: String, val shape: List<Axis>, val dtype: DType) {
    /** The shape where free axes have the lengths `sizes`, and 1 where that has none. */
    fun resolve(sizes: Map<String, Int> = emptyMap()): IntArray =
        IntArray(shape.size) { i -> shape[i].name?.let { sizes[it] ?: 1 } ?: shape[i].length }

    override fun toString() = "$name $dtype$shape"

    companion object {
        fun read(node: JsonNode) =
            TensorSpec(node["name"].text(), node["shape"].items().map { Axis.read(it) }, DType.of(node["dtype"].text()))
    }
}

/** The inputs and outputs of a graph, in the file's order. */
class GraphSpec(val inputs: List<TensorSpec>, val outputs: List<TensorSpec>) {
    fun input(name: String): TensorSpec? = inputs.firstOrNull { it.name == name }

    fun output(name: String): TensorSpec? = outputs.firstOrNull { it.name == name }

    companion object {
        fun read(node: JsonNode): GraphSpec {
            fun tensors(name: String) = node[name].items().map { TensorSpec.read(it) }
            return GraphSpec(tensors("inputs"), tensors("outputs"))
        }
    }
}

/** What is known of a graph on one compute unit. */
class KnownUnit(val status: Status, val note: String) {
    enum class Status { GOOD, BAD, UNKNOWN }
}

/** One graph of the pipeline, as whoever runs it needs it (docs/BUNDLE.md, section 5). */
class PipelineGraph(
    val name: String,
    val path: String,
    val files: List<String>,
    val spec: GraphSpec,
    /** The file's own inputs and outputs, where they differ. */
    val fileSpec: GraphSpec,
    /** By the names of `spec`. */
    val transposes: Map<String, IntArray>,
    val storage: String,
    val arithmetic: String,
    val computeUnit: String,
    val engine: Engine?,
    val memory: Memory,
    val units: Map<String, KnownUnit>,
    /** What the names of the processors begin with whose own code the file holds; null: it holds none. */
    val compiledFor: List<String>?,
    private val ownFloor: Double?,
    private val ownPictureFloor: Double?,
) {
    class Engine(val name: String, val leastVersion: String?, val signature: String?)

    /** Counted in bytes; null: not known. */
    class Memory(
        val weights: Long?,
        val activations: Long?,
        private val loading: Long?,
        private val keepsActivations: Boolean,
    ) {
        /** While the engine opens the graph, at its most. */
        val opening: Long get() = maxOf(loading ?: 0, weights ?: 0)

        /** While it is called. */
        val called: Long get() = (weights ?: 0) + (activations ?: 0)

        /** Between its calls. */
        val kept: Long get() = if (keepsActivations) called else weights ?: 0
    }

    /** What an output's dB have to reach beside a golden case (section 11); null: this engine knows none. */
    val floor: Double?
        get() = ownFloor ?: when {
            !storesFloats -> null
            arithmetic == "float16" -> 58.0
            storage == "float16" -> 65.0
            else -> 105.0
        }

    /** What one picture's dB have to reach; null: this engine knows none. */
    val pictureFloor: Double?
        get() = ownPictureFloor ?: when {
            !storesFloats -> null
            "float16" in listOf(storage, arithmetic) -> 25.0
            else -> 50.0
        }

    private val storesFloats get() = storage in FLOATS && arithmetic in FLOATS

    fun isKnownBad(unit: String): Boolean = units[unit]?.status == KnownUnit.Status.BAD

    fun isKnownGood(unit: String): Boolean = units[unit]?.status == KnownUnit.Status.GOOD

    /** Throws UnitKnownBad where the manifest says so. */
    fun checkUnit(unit: String) {
        val known = units[unit] ?: return
        if (known.status == KnownUnit.Status.BAD) throw UnitKnownBad(name, unit, known.note)
    }

    /** Throws CannotRunHere where the file holds another processor's code than that of `soc`, null: not known. */
    fun checkProcessor(soc: String?) {
        if (compiledFor == null || soc != null && compiledFor.any { soc.startsWith(it, ignoreCase = true) }) return
        val here = if (soc == null) "this phone does not name its processor" else "this phone has $soc"
        throw CannotRunHere(name, "its file holds the code of ${compiledFor.joinToString(" or ")}, and $here")
    }

    companion object {
        private val FLOATS = listOf("float32", "float16")

        fun read(name: String, node: JsonNode): PipelineGraph {
            val spec = GraphSpec.read(node["spec"])
            val fileSpec = node.optional("file_spec") { GraphSpec.read(it) } ?: spec
            if (fileSpec.inputs.size != spec.inputs.size || fileSpec.outputs.size != spec.outputs.size) {
                node.fail("its file_spec has not the tensors of its spec")
            }
            return PipelineGraph(
                name = name,
                path = node["path"].text(),
                files = node["files"].texts(),
                spec = spec,
                fileSpec = fileSpec,
                transposes = node.optional("transposes") {
                    it.entries().mapValues { (_, order) -> order.ints() }
                }.orEmpty(),
                storage = node["storage"].text(),
                arithmetic = node["arithmetic"].text(),
                computeUnit = node["compute_unit"].text(),
                engine = node.optional("engine", ::readEngine),
                memory = Memory(
                    weights = readBytes(node, "weights_bytes"),
                    activations = readBytes(node, "activations_bytes"),
                    loading = readBytes(node, "loading_bytes"),
                    keepsActivations = node.optional("memory") { it }
                        ?.optional("keeps_activations") { it.boolean() } ?: true,
                ),
                units = node.optional("units") { it.entries().mapValues { (_, unit) -> readUnit(unit) } }.orEmpty(),
                compiledFor = node.optional("compiled_for") { it.texts() },
                ownFloor = node.optional("floor_db") { it.number() },
                ownPictureFloor = node.optional("picture_floors_db") { it.items().last().number() },
            )
        }

        private fun readEngine(node: JsonNode): Engine {
            fun text(name: String) = node.optional(name) { it.text() }
            return Engine(node["name"].text(), text("least_version"), text("signature"))
        }

        private fun readBytes(node: JsonNode, name: String): Long? =
            node.optional("memory") { it }?.optional(name) { it.long() }

        private fun readUnit(node: JsonNode): KnownUnit {
            val status = when (node["status"].text()) {
                "good" -> KnownUnit.Status.GOOD
                "bad" -> KnownUnit.Status.BAD
                else -> KnownUnit.Status.UNKNOWN
            }
            return KnownUnit(status, node.optional("note") { it.text() } ?: "")
        }
    }
}
