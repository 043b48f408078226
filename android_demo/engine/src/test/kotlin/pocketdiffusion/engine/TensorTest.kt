package pocketdiffusion.engine

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class TensorTest {
    private val six = Tensor.of(intArrayOf(2, 3), floatArrayOf(1f, 2f, 3f, 4f, 5f, 6.5f))

    @Test
    fun halvesComeBackAndAreRoundedToEven() {
        for (bits in 0..0xffff) {
            val value = Half.toFloat(bits.toShort())
            if (!value.isNaN()) assertEquals(bits.toShort(), Half.of(value), "$value")
        }
        assertEquals(102, Half.of((Half.toFloat(101) + Half.toFloat(102)) / 2).toInt())
        val between = (Half.toFloat(0x3c01) + Half.toFloat(0x3c02)) / 2
        assertEquals(0x3c02, Half.of(between).toInt())
        assertEquals(0x7bff, Half.of(65519.9f).toInt())
        assertEquals(0x7c00, Half.of(65520f).toInt())
        assertTrue(Half.toFloat(Half.of(Float.NaN)).isNaN())
        assertEquals(0x8000.toShort(), Half.of(-0f))
        assertEquals(0x0400, Half.of(Math.nextDown(6.1035156e-5f)).toInt())
    }

    @Test
    fun axesAreExchangedAsInNumpy() {
        val turned = six.transpose(intArrayOf(1, 0))
        assertContentEquals(intArrayOf(3, 2), turned.shape)
        assertContentEquals(floatArrayOf(1f, 4f, 2f, 5f, 3f, 6.5f), turned.floats())
        val deep = Tensor.of(intArrayOf(2, 3, 2), FloatArray(12) { it.toFloat() }).transpose(intArrayOf(2, 0, 1))
        assertContentEquals(floatArrayOf(0f, 2f, 4f, 6f, 8f, 10f, 1f, 3f, 5f, 7f, 9f, 11f), deep.floats())
        assertFailsWith<IllegalArgumentException> { six.transpose(intArrayOf(0, 0)) }
    }

    @Test
    fun valuesAreJoinedCutAndAdded() {
        val wide = Tensor.concat(listOf(six, six), 1)
        assertContentEquals(intArrayOf(2, 6), wide.shape)
        assertContentEquals(floatArrayOf(1f, 2f, 3f, 1f, 2f, 3f, 4f, 5f, 6.5f, 4f, 5f, 6.5f), wide.floats())
        assertContentEquals(six.floats(), Tensor.concat(listOf(six, six), 0).cut(2)[1].floats())
        assertContentEquals(floatArrayOf(3f, 6f, 9f, 12f, 15f, 19.5f), Tensor.sum(listOf(six, six, six)).floats())
        assertFailsWith<IllegalArgumentException> { Tensor.concat(listOf(six, wide), 0) }
        assertFailsWith<IllegalArgumentException> { Tensor.sum(listOf(six, wide)) }
    }

    @Test
    fun numbersAreConverted() {
        val values = Tensor.of(intArrayOf(4), floatArrayOf(1.9f, -1.9f, 999.5f, 0f))
        assertContentEquals(intArrayOf(1, -1, 999, 0), values.convert(DType.INT64).convert(DType.INT32).ints())
        assertContentEquals(
            floatArrayOf(1.9003906f, -1.9003906f, 999.5f, 0f),
            values.convert(DType.FLOAT16).convert(DType.FLOAT32).floats(),
        )
        val bytes = Tensor.fromBytes(byteArrayOf(-1, 7), DType.UINT8, intArrayOf(2), "bytes")
        assertContentEquals(floatArrayOf(255f, 7f), bytes.convert(DType.FLOAT32).floats())
    }

    @Test
    fun filesAreLittleEndian() {
        val bytes = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putFloat(1.5f).putFloat(-2f).array()
        assertContentEquals(
            floatArrayOf(1.5f, -2f),
            Tensor.fromBytes(bytes, DType.FLOAT32, intArrayOf(2), "file").floats(),
        )
        assertFailsWith<Contradiction> { Tensor.fromBytes(bytes, DType.FLOAT32, intArrayOf(3), "file") }
        assertFailsWith<Contradiction> { Tensor.fromBytes(bytes, DType.FLOAT32, intArrayOf(-2, -1), "file") }
    }

    @Test
    fun whatIsNotFiniteIsFound() {
        assertTrue(six.isFinite())
        for (wrong in listOf(Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY)) {
            val values = Tensor.of(intArrayOf(2), floatArrayOf(0f, wrong))
            assertFalse(values.isFinite())
            assertFalse(values.convert(DType.FLOAT16).isFinite())
        }
    }
}
