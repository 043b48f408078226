package pocketdiffusion.engine

import java.math.BigInteger

/**
 * torch's CPU generator: the same seed gives the same noise (docs/BUNDLE.md, section 8). The engine is mt19937
 * (Matsumoto and Nishimura 1998); 16 values or more and fewer are made in two ways.
 */
class TorchRandom(seed: String) {
    private val state = IntArray(SIZE)
    private var next = SIZE
    private var kept = Double.NaN // the second value of a pair

    init {
        state[0] = parse(seed).toInt() // the lowest 32 bits, two's complement
        for (i in 1 until SIZE) state[i] = 1812433253 * (state[i - 1] xor (state[i - 1] ushr 30)) + i
    }

    /** Normal values, the next of the generator. */
    fun normal(count: Int): FloatArray {
        val values = FloatArray(count)
        if (count < BLOCK) {
            for (i in values.indices) values[i] = single().toFloat()
            return values
        }
        for (i in values.indices) values[i] = uniform24()
        for (at in 0..count - BLOCK step BLOCK) makeBlock(values, at)
        if (count % BLOCK != 0) { // the last 16 values come from words of their own
            for (i in count - BLOCK until count) values[i] = uniform24()
            makeBlock(values, count - BLOCK)
        }
        return values
    }

    internal fun word(): Int {
        if (next == SIZE) turn()
        var y = state[next++]
        y = y xor (y ushr 11)
        y = y xor (y shl 7 and 0x9d2c5680.toInt())
        y = y xor (y shl 15 and 0xefc60000.toInt())
        return y xor (y ushr 18)
    }

    private fun turn() {
        for (i in 0 until SIZE) {
            val y = (state[i] and Int.MIN_VALUE) or (state[(i + 1) % SIZE] and Int.MAX_VALUE)
            val mixed = state[(i + 397) % SIZE] xor (y ushr 1)
            state[i] = if (y and 1 == 0) mixed else mixed xor 0x9908b0df.toInt()
        }
        next = 0
    }

    /** Sixteen uniform values from `at` on become normal ones, in place. */
    private fun makeBlock(values: FloatArray, at: Int) {
        for (i in at until at + BLOCK / 2) {
            val r = Math.sqrt(-2 * Math.log1p(-values[i].toDouble()))
            val t = (values[i + BLOCK / 2] * TWO_PI).toDouble()
            values[i] = (r * Math.cos(t)).toFloat()
            values[i + BLOCK / 2] = (r * Math.sin(t)).toFloat()
        }
    }

    private fun single(): Double {
        if (!kept.isNaN()) return kept.also { kept = Double.NaN }
        val t = 2 * Math.PI * uniform53()
        val r = Math.sqrt(-2 * Math.log1p(-uniform53()))
        kept = r * Math.sin(t)
        return r * Math.cos(t)
    }

    private fun uniform24(): Float = (word() and 0xffffff) / 16777216f

    private fun uniform53(): Double {
        val bits = (word().toLong() shl 32) or (word().toLong() and 0xffffffffL)
        return (bits and (1L shl 53) - 1) / 9007199254740992.0
    }

    companion object {
        private const val SIZE = 624
        private const val BLOCK = 16
        private const val TWO_PI = (2 * Math.PI).toFloat()
        private val LEAST = BigInteger.ONE.shiftLeft(63).negate()
        private val MOST = BigInteger.ONE.shiftLeft(64) - BigInteger.ONE
        private val WHOLE = Regex("-?[0-9]{1,40}")

        /** The seed that a text says, an integer from -2^63 to 2^64-1. Throws BadRequest. */
        fun parse(seed: String): BigInteger {
            val number = if (WHOLE.matches(seed)) BigInteger(seed) else null
            if (number == null || number < LEAST || number > MOST) {
                throw BadRequest("The seed has to be an integer from -2^63 to 2^64-1, and not $seed.")
            }
            return number
        }
    }
}
