package pocketdiffusion.engine

/** A picture of 8 bits a channel: rows of red, green, blue. */
class Picture(val width: Int, val height: Int, val rgb: ByteArray) {
    init {
        require(rgb.size == width * height * 3) { "${rgb.size} bytes are not a picture of $width x $height" }
    }

    /** The host value `picture`: float32 [1, 3, H, W] in -1..1 (docs/BUNDLE.md, section 9). */
    fun toTensor(): Tensor {
        val area = width * height
        val values = FloatArray(rgb.size) { i -> (rgb[i % area * 3 + i / area].toInt() and 0xff) / 127.5f - 1f }
        return Tensor.of(intArrayOf(1, 3, height, width), values)
    }

    companion object {
        /** What a decoder gave, float32 [1, 3, H, W] (section 10): clamped, rounded half to even, NaN becomes 0. */
        fun of(decoded: FloatArray, width: Int, height: Int): Picture {
            val area = width * height
            val rgb = ByteArray(decoded.size)
            for (i in decoded.indices) rgb[i % area * 3 + i / area] = level(decoded[i] * 0.5f + 0.5f)
            return Picture(width, height, rgb)
        }

        /** A rough picture of latents [1, c, h, w], one pixel for each (section 3). */
        fun preview(latents: FloatArray, width: Int, height: Int, preview: Pipeline.Preview): Picture {
            val area = width * height
            val rgb = ByteArray(area * 3)
            for (pixel in 0 until area) {
                for (k in 0..2) {
                    var value = preview.bias[k]
                    for ((c, row) in preview.matrix.withIndex()) value += latents[c * area + pixel] * row[k]
                    rgb[pixel * 3 + k] = level(value.toFloat())
                }
            }
            return Picture(width, height, rgb)
        }

        private fun level(unit: Float): Byte =
            if (unit.isNaN()) 0 else Math.rint((Math.min(Math.max(unit, 0f), 1f) * 255f).toDouble()).toInt().toByte()
    }
}
