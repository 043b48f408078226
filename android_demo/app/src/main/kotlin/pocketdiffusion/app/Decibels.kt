package pocketdiffusion.app

import android.content.res.Resources
import pocketdiffusion.engine.Verdict

/** What a distance in dB means, in words: beside what an eye sees, and beside other pictures by the original. */
class Decibels(private val resources: Resources) {
    fun of(verdict: Verdict): String =
        if (verdict.finite) decibels(verdict.psnrDb) else resources.getString(R.string.not_finite)

    fun decibels(decibels: Double): String = when (decibels) {
        Double.POSITIVE_INFINITY -> resources.getString(R.string.equal)
        Double.NEGATIVE_INFINITY -> resources.getString(R.string.not_finite)
        else -> resources.getString(R.string.decibels, decibels)
    }

    fun picture(verdict: Verdict, isDrawn: Boolean): String = when {
        !isDrawn -> resources.getString(R.string.picture_none, verdict.note)
        verdict.psnrDb == Double.POSITIVE_INFINITY -> resources.getString(R.string.picture_equal)
        verdict.psnrDb >= UNSEEN -> resources.getString(R.string.picture_unseen)
        verdict.psnrDb >= NEAR -> resources.getString(R.string.picture_near)
        else -> resources.getString(R.string.picture_far)
    }

    fun controls(decibels: Double, controls: Map<String, Double>): String = resources.getString(
        when {
            controls.isEmpty() -> R.string.controls_none
            controls.values.all { it < decibels } -> R.string.controls_nearer
            else -> R.string.controls_further
        },
    )

    /** A control as the proof names it, in the person's language. */
    fun control(name: String): String = when (name) {
        "another seed" -> resources.getString(R.string.control_seed)
        "one step less" -> resources.getString(R.string.control_steps)
        "the prompt without its last word" -> resources.getString(R.string.control_prompt)
        else -> name
    }

    private companion object {
        const val UNSEEN = 45.0 // at most one or two levels of 255, as a rule
        const val NEAR = 30.0
    }
}
