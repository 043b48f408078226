package pocketdiffusion.engine

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * An array in C order. Its numbers lie in a direct buffer in the machine's order, which is what engines take without a
 * copy. A tensor is not changed once it was made.
 */
class Tensor private constructor(val dtype: DType, val shape: IntArray, private val data: ByteBuffer) {
    val count get() = countOf(shape)

    /** The numbers; position and limit are the caller's own. */
    fun bytes(): ByteBuffer = data.duplicate().order(ByteOrder.nativeOrder()).apply { clear() }

    fun floats(): FloatArray {
        check(dtype == DType.FLOAT32) { "$dtype is not float32" }
        return FloatArray(count).also { bytes().asFloatBuffer().get(it) }
    }

    fun ints(): IntArray {
        check(dtype == DType.INT32) { "$dtype is not int32" }
        return IntArray(count).also { bytes().asIntBuffer().get(it) }
    }

    fun reshape(shape: IntArray): Tensor {
        require(countOf(shape) == count) { "$count values for ${shape.contentToString()}" }
        return Tensor(dtype, shape, data)
    }

    /** Whether no value is NaN or infinite. */
    fun isFinite(): Boolean {
        val bytes = bytes()
        return when (dtype) {
            DType.FLOAT32 -> bytes.asFloatBuffer().let { all -> (0 until count).all { isFinite(all[it]) } }
            DType.FLOAT16 -> bytes.asShortBuffer().let { all -> (0 until count).all { Half.isFinite(all[it]) } }
            else -> true
        }
    }

    /** Floats to integers are cut, floats to float16 rounded half to even. */
    fun convert(to: DType): Tensor {
        if (to == dtype) return this
        val from = bytes()
        return make(to, shape) { into ->
            for (i in 0 until count) {
                if (dtype.isFloat) put(into, to, i, float(from, i)) else put(into, to, i, whole(from, i))
            }
        }
    }

    /** numpy.transpose: axis i of the result is axis order[i] of this. */
    fun transpose(order: IntArray?): Tensor {
        if (order == null || order.indices.all { order[it] == it }) return this
        require(order.sorted() == shape.indices.toList()) { "${order.contentToString()} is not an order of the axes" }
        val strides = IntArray(shape.size) { axis -> countOf(shape, axis + 1) * dtype.bytes }
        val result = IntArray(shape.size) { shape[order[it]] }
        val from = bytes()
        return make(dtype, result) { into ->
            val place = IntArray(result.size)
            var at = 0
            repeat(count) {
                repeat(dtype.bytes) { into.put(from.get(at + it)) }
                for (axis in result.indices.reversed()) {
                    at += strides[order[axis]]
                    if (++place[axis] < result[axis]) break
                    at -= result[axis] * strides[order[axis]]
                    place[axis] = 0
                }
            }
        }
    }

    /** The `parts` equal parts along the first axis. */
    fun cut(parts: Int): List<Tensor> {
        require(shape[0] % parts == 0) { "${shape[0]} in $parts parts" }
        val part = shape.clone().also { it[0] = shape[0] / parts }
        val size = countOf(part) * dtype.bytes
        return List(parts) { i ->
            make(dtype, part) { into -> into.put(bytes().apply { position(i * size).limit((i + 1) * size) }) }
        }
    }

    private fun float(from: ByteBuffer, i: Int): Float =
        if (dtype == DType.FLOAT16) Half.toFloat(from.getShort(2 * i)) else from.getFloat(4 * i)

    private fun whole(from: ByteBuffer, i: Int): Long = when (dtype) {
        DType.INT32 -> from.getInt(4 * i).toLong()
        DType.INT64 -> from.getLong(8 * i)
        else -> from.get(i).toLong() and 0xff
    }

    companion object {
        fun countOf(shape: IntArray, from: Int = 0): Int =
            (from until shape.size).fold(1) { product, i -> Math.multiplyExact(product, shape[i]) }

        /** A tensor whose buffer, at first zeros, `fill` writes. */
        fun make(dtype: DType, shape: IntArray, fill: (ByteBuffer) -> Unit = {}): Tensor {
            val data = ByteBuffer.allocateDirect(countOf(shape) * dtype.bytes).order(ByteOrder.nativeOrder())
            fill(data)
            return Tensor(dtype, shape, data)
        }

        fun of(shape: IntArray, values: FloatArray): Tensor {
            require(countOf(shape) == values.size) { "${values.size} values for ${shape.contentToString()}" }
            return make(DType.FLOAT32, shape) { it.asFloatBuffer().put(values) }
        }

        fun of(shape: IntArray, values: IntArray): Tensor {
            require(countOf(shape) == values.size) { "${values.size} values for ${shape.contentToString()}" }
            return make(DType.INT32, shape) { it.asIntBuffer().put(values) }
        }

        /** An array of a file: little-endian, C order. Throws Contradiction, which names `where`. */
        fun fromBytes(bytes: ByteArray, dtype: DType, shape: IntArray, where: String): Tensor {
            val size = shape.fold(dtype.bytes.toDouble()) { product, length -> product * length } // cannot overflow
            if (shape.any { it < 0 } || bytes.size.toDouble() != size) {
                throw Contradiction(where, "it has ${bytes.size} bytes, not those of $dtype${shape.contentToString()}")
            }
            val from = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
            return make(dtype, shape) { into ->
                when (dtype.bytes) {
                    1 -> into.put(from)
                    2 -> into.asShortBuffer().put(from.asShortBuffer())
                    4 -> into.asIntBuffer().put(from.asIntBuffer())
                    else -> into.asLongBuffer().put(from.asLongBuffer())
                }
            }
        }

        fun concat(all: List<Tensor>, axis: Int): Tensor {
            val first = all.first()
            val fits = all.all { other ->
                other.dtype == first.dtype &&
                    other.shape.size == first.shape.size &&
                    first.shape.indices.all { it == axis || other.shape[it] == first.shape[it] }
            }
            require(axis in first.shape.indices && fits) { "these values cannot be joined along axis $axis" }
            val shape = first.shape.clone().also { it[axis] = all.sumOf { other -> other.shape[axis] } }
            val runs = all.map { countOf(it.shape, axis) * it.dtype.bytes }
            return make(first.dtype, shape) { into ->
                val from = all.map { it.bytes() }
                repeat(countOf(first.shape.copyOf(axis))) {
                    for ((i, one) in from.withIndex()) {
                        one.limit(one.position() + runs[i])
                        into.put(one)
                    }
                }
            }
        }

        /** The sum in float32, from left to right. */
        fun sum(all: List<Tensor>): Tensor {
            val sum = all.first().floats()
            for (one in all.drop(1)) {
                require(one.shape.contentEquals(all.first().shape)) { "values of different shapes cannot be added" }
                val more = one.floats()
                for (i in sum.indices) sum[i] += more[i]
            }
            return of(all.first().shape, sum)
        }

        internal fun isFinite(value: Float) = !value.isNaN() && !value.isInfinite()

        private fun put(into: ByteBuffer, to: DType, i: Int, value: Float) {
            when (to) {
                DType.FLOAT32 -> into.putFloat(4 * i, value)
                DType.FLOAT16 -> into.putShort(2 * i, Half.of(value))
                DType.INT32 -> into.putInt(4 * i, value.toInt())
                DType.INT64 -> into.putLong(8 * i, value.toLong())
                DType.UINT8 -> into.put(i, value.toInt().toByte())
            }
        }

        private fun put(into: ByteBuffer, to: DType, i: Int, value: Long) {
            when (to) {
                DType.FLOAT32 -> into.putFloat(4 * i, value.toFloat())
                DType.FLOAT16 -> into.putShort(2 * i, Half.of(value.toFloat()))
                DType.INT32 -> into.putInt(4 * i, value.toInt())
                DType.INT64 -> into.putLong(8 * i, value)
                DType.UINT8 -> into.put(i, value.toByte())
            }
        }
    }
}
