package pocketdiffusion.engine

/** A case of a conformance vector: what is given, and what the original libraries made of it. */
class VectorCase(
    val label: String,
    val texts: Map<String, String>,
    val numbers: Map<String, Double>,
    val arrays: Map<String, Tensor>,
    val expected: Map<String, Tensor>,
)

/** A conformance vector (docs/BUNDLE.md, section 12); `tells` is what is wrong in an engine that fails it. */
class Vector(val name: String, val kind: String, val tells: String, val floorDb: Double, val cases: List<VectorCase>)

/** The bundle's conformance vectors, and how an engine meets them. */
class Vectors(bundle: Bundle, generator: Generator) {
    private val answers = VectorAnswers(generator)
    val all: List<Vector> = read(bundle)

    fun judge(vector: Vector): Verdict {
        val dbs = ArrayList<Double>()
        for (case in vector.cases) {
            val made = try {
                answers.answer(vector.kind, case)
            } catch (error: EngineError) {
                return failed(vector, "${case.label}: ${error.message}")
            } ?: return failed(vector, "this app is too old for the kind ${vector.kind}")
            for ((name, expected) in case.expected) {
                val db = compare(vector, expected, made[name])
                if (db < vector.floorDb) return failed(vector, "${case.label}, $name: ${vector.tells}", db)
                dbs += db
            }
        }
        return Verdict(vector.name, dbs.minOrNull() ?: Double.POSITIVE_INFINITY, vector.floorDb)
    }

    private fun failed(vector: Vector, note: String, db: Double = Double.NEGATIVE_INFINITY) =
        Verdict(vector.name, db, vector.floorDb, note = note)

    /** The least dB of the array, or of its rows where these are compared each by itself. */
    private fun compare(vector: Vector, expected: Tensor, made: Tensor?): Double {
        if (made == null || made.dtype != expected.dtype || !made.shape.contentEquals(expected.shape)) {
            return Double.NEGATIVE_INFINITY
        }
        val (wanted, found) = listOf(expected, made).map { it.convert(DType.FLOAT32).floats() }
        val rows = if (vector.kind in ROW_BY_ROW) expected.shape[0] else 1
        val width = wanted.size / Math.max(rows, 1)
        return (0 until rows).minOfOrNull { row ->
            val (from, to) = row * width to (row + 1) * width
            compare(wanted.copyOfRange(from, to), found.copyOfRange(from, to), vector.floorDb)
        } ?: Double.POSITIVE_INFINITY
    }

    private companion object {
        const val EQUAL_DB = 200.0
        val ROW_BY_ROW = listOf("start", "run") // kinds whose arrays have a row for each of several runs

        /** dB, or minus infinity where the largest difference is more than ten times what the floor allows. */
        fun compare(expected: FloatArray, made: FloatArray, floor: Double): Double {
            val peak = expected.maxOfOrNull { Math.abs(it) }?.toDouble()?.takeIf { it > 0 } ?: 1.0
            val worst = expected.indices.maxOfOrNull { Math.abs(expected[it].toDouble() - made[it]) } ?: 0.0
            val db = Compare.psnr(expected, made, peak)
            val isTooFar = worst > 10 * peak * Math.pow(10.0, -floor / 20) || floor >= EQUAL_DB && worst > 0
            return if (isTooFar || made.any { !Tensor.isFinite(it) }) Double.NEGATIVE_INFINITY else db
        }

        fun read(bundle: Bundle): List<Vector> {
            val paths = bundle.manifest.conformance
            val index = paths.firstOrNull { it.endsWith(".json") } ?: return emptyList()
            val file = paths.firstOrNull { it.endsWith(".bin") } ?: throw Contradiction(index, "its arrays are missing")
            val bytes = bundle.read(file)

            fun arrays(node: JsonNode) = node.entries().mapValues { (_, ref) ->
                val dtype = DType.of(ref["dtype"].text())
                val shape = ref["shape"].ints()
                val begin = ref["offset"].int()
                val end = begin.toLong() + Tensor.countOf(shape) * dtype.bytes
                if (end > bytes.size) ref.fail("the file of arrays ends before it")
                Tensor.fromBytes(bytes.copyOfRange(begin, end.toInt()), dtype, shape, file)
            }

            return bundle.json(index)["vectors"].items().map { vector ->
                Vector(
                    name = vector["name"].text(),
                    kind = vector["kind"].text(),
                    tells = vector["tells"].text(),
                    floorDb = vector["floor_db"].number(),
                    cases = vector["cases"].items().map { case ->
                        VectorCase(
                            case["label"].text(),
                            case["texts"].entries().mapValues { it.value.text() },
                            case["numbers"].entries().mapValues { it.value.number() },
                            arrays(case["arrays"]),
                            arrays(case["expected"]),
                        )
                    },
                )
            }
        }
    }
}
