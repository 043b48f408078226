package pocketdiffusion.engine

/** How equal two lists of numbers are. */
object Compare {
    /**
     * 20 log10(peak / rms of the difference) in dB; infinity where they are equal, minus infinity where a value is not
     * finite or the lengths differ. `peak` null: the largest absolute value of the reference.
     */
    fun psnr(reference: FloatArray, other: FloatArray, peak: Double? = null): Double {
        if (reference.size != other.size) return Double.NEGATIVE_INFINITY
        var square = 0.0
        var largest = 0.0
        for (i in reference.indices) {
            val difference = reference[i].toDouble() - other[i]
            square += difference * difference
            largest = Math.max(largest, Math.abs(reference[i].toDouble()))
        }
        return when {
            square.isNaN() || square.isInfinite() -> Double.NEGATIVE_INFINITY
            square == 0.0 -> Double.POSITIVE_INFINITY
            else -> 20 * Math.log10((peak ?: largest) / Math.sqrt(square / reference.size))
        }
    }

    fun psnr(reference: Picture, other: Picture): Double = psnr(levelsOf(reference), levelsOf(other), 255.0)

    private fun levelsOf(picture: Picture) = FloatArray(picture.rgb.size) {
        (picture.rgb[it].toInt() and 0xff).toFloat()
    }
}

/** What was judged, and how it came out: in dB beside a floor, as the exporter's own gate says it. */
class Verdict(
    val subject: String,
    val psnrDb: Double,
    /** Null: there is none, and nothing passes. */
    val floorDb: Double?,
    val finite: Boolean = true,
    /** What is wrong where it failed; may be empty. */
    val note: String = "",
) {
    val passed get() = finite && floorDb != null && psnrDb >= floorDb

    override fun toString(): String {
        val db = if (psnrDb == Double.POSITIVE_INFINITY) "equal" else "%.1f dB".format(java.util.Locale.ROOT, psnrDb)
        val said = if (finite) db else "not finite"
        val end = if (note.isEmpty()) "" else "; $note"
        return "${if (passed) "ok" else "FAILED"} $subject: $said, ${floorDb?.let {
            "floor ${it.toInt()} dB"
        } ?: "no floor known"}$end"
    }
}
