package pocketdiffusion.engine

/** The types of numbers in files and tensors, by numpy's names. */
enum class DType(val text: String, val bytes: Int) {
    FLOAT32("float32", 4),
    FLOAT16("float16", 2),
    INT32("int32", 4),
    INT64("int64", 8),
    UINT8("uint8", 1),
    ;

    val isFloat get() = this == FLOAT32 || this == FLOAT16

    override fun toString() = text

    companion object {
        fun of(text: String): DType = values().firstOrNull { it.text == text } ?: throw Refusal("the dtype $text")
    }
}

/** Numbers of 16 bits, as bits. */
object Half {
    private const val INFINITY = 0x7c00
    private const val NAN = 0x7e00
    private const val OVERFLOW = 65520f // rounds to infinity

    fun isFinite(half: Short): Boolean = half.toInt() and INFINITY != INFINITY

    fun toFloat(half: Short): Float {
        val bits = half.toInt() and 0xffff
        val exponent = bits shr 10 and 31
        val fraction = bits and 1023
        val size =
            when (exponent) {
                0 -> fraction * SMALLEST
                31 -> if (fraction == 0) Float.POSITIVE_INFINITY else Float.NaN
                else -> java.lang.Float.intBitsToFloat((exponent + 112 shl 23) or (fraction shl 13))
            }
        return if (bits and 0x8000 == 0) size else -size
    }

    /** The nearest half, ties to even. */
    fun of(value: Float): Short {
        val sign = java.lang.Float.floatToRawIntBits(value) ushr 16 and 0x8000
        val size = Math.abs(value)
        val bits =
            when {
                value.isNaN() -> NAN
                size >= OVERFLOW -> INFINITY
                size < LEAST_NORMAL -> Math.rint(size / SMALLEST.toDouble()).toInt()
                else -> {
                    val whole = java.lang.Float.floatToRawIntBits(size) - (112 shl 23)
                    (whole + 0xfff + (whole shr 13 and 1)) shr 13
                }
            }
        return (sign or bits).toShort()
    }

    private const val SMALLEST = 5.9604645e-8f // 2^-24
    private const val LEAST_NORMAL = 6.1035156e-5f // 2^-14
}
