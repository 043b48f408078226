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
        var least = Double.POSITIVE_INFINITY
        for (case in vector.cases) {
            val made = try {
                answers.answer(vector.kind, case)
            } catch (error: EngineError) {
                return failed(vector, "${case.label}: ${error.message}")
            } ?: return failed(vector, "this app is too old for the kind ${vector.kind}")
            for ((name, expected) in case.expected) {
                val found = made[name]
                if (found == null || found.dtype != expected.dtype || !found.shape.contentEquals(expected.shape)) {
                    return failed(vector, "${case.label}, $name has another shape: ${vector.tells}")
                }
                for ((one, other) in piecesOf(vector.kind, expected).zip(piecesOf(vector.kind, found))) {
                    val db = compare(one, other, vector.floorDb)
                    if (db <
                        vector.floorDb
                    ) {
                        return Verdict(
                            vector.name,
                            db,
                            vector.floorDb,
                            note = "${case.label}, $name: ${vector.tells}",
                        )
                    }
                    least = Math.min(least, db)
                }
            }
        }
        return Verdict(vector.name, least, vector.floorDb)
    }

    private fun failed(vector: Vector, note: String) =
        Verdict(vector.name, Double.NEGATIVE_INFINITY, vector.floorDb, note = note)

    /** The arrays that are compared each by itself: of several runs, the row of each. */
    private fun piecesOf(kind: String, array: Tensor): List<FloatArray> {
        val numbers = array.convert(DType.FLOAT32).floats()
        if (kind !in listOf("start", "run") || array.shape[0] < 2) return listOf(numbers)
        val width = numbers.size / array.shape[0]
        return List(array.shape[0]) { numbers.copyOfRange(it * width, (it + 1) * width) }
    }

    private companion object {
        const val EQUAL_DB = 200.0

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
