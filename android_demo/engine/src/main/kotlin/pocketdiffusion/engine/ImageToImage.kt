package pocketdiffusion.engine

/** What image to image makes of the user's picture (docs/BUNDLE.md, section 9). */
object ImageToImage {
    private const val WEIGHT_BITS = 22 // as Pillow has them
    private const val LOBES = 3.0

    /**
     * The number of rows that are left out. Throws BadRequest for a strength that is not above 0 and at most 1, or that
     * leaves no step.
     */
    fun startOf(steps: Int, strength: Double): Int {
        if (!(strength > 0 && strength <= 1)) {
            throw BadRequest("A strength is above 0 and at most 1, which redraws all: it cannot be $strength.")
        }
        val start = steps - Math.min(Math.floor(steps * strength), steps.toDouble()).toInt()
        if (start < steps) return start
        throw BadRequest("A strength of $strength leaves none of $steps steps: take more of one of them.")
    }

    /** Rows of red, green, blue, alpha over white, as Pillow's alpha_composite gives them. */
    fun overWhite(rgba: ByteArray): ByteArray {
        val rgb = ByteArray(rgba.size / 4 * 3)
        for (i in 0 until rgba.size / 4) {
            val alpha = rgba[4 * i + 3].toInt() and 0xff
            for (k in 0..2) {
                val level = rgba[4 * i + k].toInt() and 0xff
                rgb[3 * i + k] = Math.round((level * alpha + 255 * (255 - alpha)) / 255.0).toInt().toByte()
            }
        }
        return rgb
    }

    /**
     * Pillow's resize with the filter Lanczos: along one axis after the other, with whole levels between. The columns
     * come first where the height shrinks by more than twice what the width shrinks by.
     */
    fun resize(picture: Picture, width: Int, height: Int): Picture {
        val fewerRows = picture.height - height
        val isColumnsFirst = fewerRows > 0 && fewerRows > 2 * (picture.width - width)
        val levels = if (isColumnsFirst) {
            alongRows(alongColumns(picture.rgb, picture.width, picture.height, height), picture.width, height, width)
        } else {
            val narrow = alongRows(picture.rgb, picture.width, picture.height, width)
            alongColumns(narrow, width, picture.height, height)
        }
        return Picture(width, height, levels)
    }

    private fun alongRows(levels: ByteArray, width: Int, height: Int, to: Int): ByteArray {
        if (to == width) return levels
        return Filter(width, to).apply(levels, height, line = width * 3, step = 3, toLine = to * 3)
    }

    private fun alongColumns(levels: ByteArray, width: Int, height: Int, to: Int): ByteArray {
        if (to == height) return levels
        return Filter(height, to).apply(levels, width, line = 3, step = width * 3, toLine = 3)
    }

    /** The weights by which lines of `from` pixels become lines of `to` pixels. */
    private class Filter(private val from: Int, private val to: Int) {
        private val first = IntArray(to)
        private val weights: Array<IntArray>

        init {
            val scale = from.toDouble() / to
            val widened = Math.max(scale, 1.0)
            weights = Array(to) { i ->
                val center = (i + 0.5) * scale
                first[i] = Math.max((center - LOBES * widened + 0.5).toInt(), 0)
                val end = Math.min((center + LOBES * widened + 0.5).toInt(), from)
                val raw = DoubleArray(end - first[i]) { lanczos((it + first[i] - center + 0.5) * (1 / widened)) }
                val total = raw.sum()
                IntArray(raw.size) { j ->
                    val weight = if (total == 0.0) raw[j] else raw[j] / total
                    (weight * (1 shl WEIGHT_BITS) + if (weight < 0) -0.5 else 0.5).toInt()
                }
            }
        }

        /** The pixels of a line are `step` bytes apart, and two lines `line` bytes before and `toLine` bytes after. */
        fun apply(levels: ByteArray, lines: Int, line: Int, step: Int, toLine: Int): ByteArray {
            val result = ByteArray(lines * to * 3)
            for (i in 0 until to) {
                for (l in 0 until lines) {
                    for (k in 0..2) {
                        var sum = 1L shl (WEIGHT_BITS - 1)
                        var at = l * line + first[i] * step + k
                        for (weight in weights[i]) {
                            sum += (levels[at].toInt() and 0xff) * weight.toLong()
                            at += step
                        }
                        result[l * toLine + i * step + k] = Math.min(Math.max(sum shr WEIGHT_BITS, 0), 255).toByte()
                    }
                }
            }
            return result
        }

        private fun lanczos(x: Double): Double = if (x >= -LOBES && x < LOBES) sinc(x) * sinc(x / LOBES) else 0.0

        private fun sinc(x: Double): Double = if (x == 0.0) 1.0 else Math.sin(Math.PI * x) / (Math.PI * x)
    }
}
