package pocketdiffusion.engine

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

/** Files whose tensors are not laid out as the pipeline says: other names, orders of axes, shapes and dtypes. */
class FileConventionTest {
    private val graph = PipelineGraph.read(
        "turned",
        JsonNode.parse(
            """{"path": "g", "files": ["g"], "storage": "float32", "arithmetic": "float32", "compute_unit": "cpu",
            "spec": {
                "inputs": [{"name": "a", "shape": ["n", 2, 3], "dtype": "float32"}],
                "outputs": [{"name": "b", "shape": ["n", 2, 3], "dtype": "float32"}]
            },
            "file_spec": {
                "inputs": [{"name": "y", "shape": ["n", 3, 2, 1], "dtype": "int64"}],
                "outputs": [{"name": "z", "shape": [6], "dtype": "float16"}]
            },
            "transposes": {"a": [0, 2, 1], "b": [0, 2, 1]}}""".toByteArray(),
            "test",
        ),
    )
    private val convention = FileConvention(graph)
    private val a = Tensor.of(intArrayOf(1, 2, 3), floatArrayOf(1f, 2f, 3f, 4f, 5f, 6.5f))

    @Test
    fun inputsAreTransposedReshapedAndConverted() {
        val sizes = convention.sizesOf(mapOf("a" to a))
        assertEquals(mapOf("n" to 1), sizes)
        val y = convention.toFile(mapOf("a" to a), sizes).getValue("y")
        assertEquals(DType.INT64, y.dtype)
        assertContentEquals(intArrayOf(1, 3, 2, 1), y.shape)
        assertContentEquals(intArrayOf(1, 4, 2, 5, 3, 6), y.convert(DType.INT32).ints())
    }

    @Test
    fun outputsComeBackTheOtherWayRound() {
        val z = Tensor.of(intArrayOf(6), floatArrayOf(1f, 2f, 3f, 4f, 5f, 6f)).convert(DType.FLOAT16)
        val b = convention.fromFile(mapOf("z" to z), mapOf("n" to 1)).getValue("b")
        assertEquals(DType.FLOAT32, b.dtype)
        assertContentEquals(intArrayOf(1, 2, 3), b.shape)
        assertContentEquals(floatArrayOf(1f, 3f, 5f, 2f, 4f, 6f), b.floats())
        val broken = Tensor.of(intArrayOf(6), FloatArray(6) { if (it == 4) 1e6f else 0f }).convert(DType.FLOAT16)
        val error = assertFailsWith<NotFinite> { convention.fromFile(mapOf("z" to broken), mapOf("n" to 1)) }
        assertEquals("b", error.output)
        val short = mapOf("z" to Tensor.of(intArrayOf(5), FloatArray(5)))
        assertFailsWith<EngineFailure> { convention.fromFile(short, mapOf("n" to 1)) }
    }

    @Test
    fun whatDoesNotFitIsRefused() {
        for (wrong in listOf(a.reshape(intArrayOf(1, 3, 2)), a.reshape(intArrayOf(6)), a.convert(DType.INT32))) {
            assertFailsWith<EngineFailure> { convention.sizesOf(mapOf("a" to wrong)) }
        }
    }
}
