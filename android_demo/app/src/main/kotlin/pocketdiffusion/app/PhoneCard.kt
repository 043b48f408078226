package pocketdiffusion.app

import android.view.View
import android.widget.TextView
import pocketdiffusion.engine.Residency

/** The card that says how the phone is: memory, temperature, for which phone the bundle was made, units. */
class PhoneCard(private val screen: MainActivity) {
    private val phone = screen.studio.phone
    private val messages = Messages(screen.resources)

    fun show(opened: Opened?, hasPhoto: Boolean) {
        text(R.id.phone_memory, memory(opened, hasPhoto))
        text(R.id.phone_heat, listOfNotNull(heat(), saving()).joinToString("\n"))
        text(R.id.phone_target, target(opened))
        val units = opened?.units.orEmpty()
        screen.view<View>(R.id.unit_group).visibility =
            if (units.size > 1 || notes(opened).isNotEmpty()) View.VISIBLE else View.GONE
        text(R.id.unit_note, notes(opened).joinToString("\n"))
    }

    /** What is to say of units that are not used. */
    private fun notes(opened: Opened?): List<String> {
        val bad = opened?.badUnits.orEmpty().map { (unit, graph) ->
            val note = graph.units.getValue(unit).note
            screen.getString(R.string.unit_left_out, messages.unit(unit), note, graph.name).trim()
        }
        return bad + opened?.untestedUnits.orEmpty().map { screen.getString(R.string.unit_untested, messages.unit(it)) }
    }

    private fun memory(opened: Opened?, hasPhoto: Boolean): String {
        val left = phone.leftBytes()
        val (usual, least) = listOf(Residency.STAGE, Residency.CALL).map { opened?.peakBytes(hasPhoto, it) }
        if (usual == null || least == null) return screen.getString(R.string.memory_left, messages.megabytes(left))
        val (words, needs) = when {
            usual <= left -> R.string.memory to usual
            least <= left -> R.string.memory_less to least
            else -> R.string.memory_short to least
        }
        return screen.getString(words, messages.megabytes(needs), messages.megabytes(left))
    }

    private fun heat(): String = screen.getString(
        when (phone.heat()) {
            Phone.Heat.UNKNOWN -> R.string.heat_unknown
            Phone.Heat.NORMAL -> R.string.heat_normal
            Phone.Heat.WARM -> R.string.heat_warm
            Phone.Heat.HOT -> R.string.heat_hot
            Phone.Heat.CRITICAL -> R.string.heat_critical
        },
    )

    private fun saving(): String? = if (phone.isSavingPower) screen.getString(R.string.saving_power) else null

    private fun target(opened: Opened?): String? {
        val target = opened?.manifest?.target ?: return null
        return target.noticeOn(phone.device())?.let { screen.getString(R.string.other_target, target.title) }
    }

    private fun text(id: Int, words: String?) {
        screen.view<TextView>(id).apply {
            text = words
            visibility = if (words.isNullOrEmpty()) View.GONE else View.VISIBLE
        }
    }
}
