package pocketdiffusion.app

import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.EditText
import android.widget.ImageView
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.Switch
import android.widget.TextView
import java.util.Locale

/** What to draw and how: the fields and sliders of the main screen, which keep what they show in the settings. */
class Controls(private val screen: MainActivity, private val settings: Settings) {
    private val prompt: EditText = screen.view(R.id.prompt)
    private val negative: EditText = screen.view(R.id.negative)
    private val seed: EditText = screen.view(R.id.seed)
    private val steps: SeekBar = screen.view(R.id.steps)
    private val guidance: SeekBar = screen.view(R.id.guidance)
    private val strength: SeekBar = screen.view(R.id.strength)
    private val sampler: Spinner = screen.view(R.id.sampler)
    private val keepsSeed: Switch = screen.view(R.id.keep_seed)
    private var shown: Opened? = null

    init {
        for (view in listOf(prompt, negative, seed, steps, guidance, strength, sampler, keepsSeed)) {
            view.isSaveEnabled = false // the settings keep it
        }
        prompt.setText(settings.prompt)
        negative.setText(settings.negativePrompt)
        seed.setText(settings.seed)
        keepsSeed.isChecked = settings.keepsSeed
        prompt.onText { settings.prompt = it }
        negative.onText { settings.negativePrompt = it }
        seed.onText { text ->
            if (Wish.isSeed(text)) settings.seed = text
            seed.error = if (Wish.isSeed(text)) null else screen.getString(R.string.seed_wrong)
        }
        keepsSeed.setOnCheckedChangeListener { _, keeps -> settings.keepsSeed = keeps }
        screen.view<View>(R.id.dice).setOnClickListener {
            settings.newSeed()
            seed.setText(settings.seed)
        }
        guidance.max = ((MOST_GUIDANCE - LEAST_GUIDANCE) / GUIDANCE_STEP).toInt()
        strength.max = STRENGTH_PARTS - 1
        steps.onMove { settings.steps = stepsOf(it) }
        guidance.onMove { settings.guidance = guidanceOf(it) }
        strength.onMove { settings.strength = strengthOf(it) }
    }

    /** Shows the values that hold for a bundle. */
    fun show(opened: Opened?) {
        if (opened != null && opened !== shown) fill(opened)
        shown = opened
        val photo = settings.photo
        screen.view<View>(R.id.photo_group).show(opened?.takesPhoto == true)
        screen.view<View>(R.id.photo_remove).show(photo != null)
        screen.view<View>(R.id.strength_group).show(photo != null)
        val view = screen.view<ImageView>(R.id.photo_view)
        view.show(photo != null)
        screen.studio.thumbnail.show(photo)
        view.setImageBitmap(screen.studio.thumbnail.bitmap)
        showValues()
    }

    /** What the person asks for; null where a field is wrong, which says so. */
    fun wish(): Wish? {
        val opened = shown ?: return null
        if (!Wish.isSeed(seed.text.toString())) {
            seed.error = screen.getString(R.string.seed_wrong)
            seed.requestFocus()
            return null
        }
        if (!settings.keepsSeed && settings.isSeedDrawn) {
            settings.newSeed()
            seed.setText(settings.seed)
        }
        return Wish(
            prompt = prompt.text.toString(),
            negativePrompt = negative.text.toString().takeIf { it.isNotBlank() && opened.takesNegative },
            seed = settings.seed,
            steps = settings.steps,
            guidance = settings.guidance,
            sampler = settings.sampler,
            photo = settings.photo.takeIf { opened.takesPhoto },
            strength = settings.strength,
            unit = settings.unit?.takeIf { it in opened.units },
        )
    }

    private fun fill(opened: Opened) {
        val defaults = opened.pipeline.defaults
        steps.max = opened.pipeline.steps.mostSteps - 1
        steps.progress = (settings.steps ?: defaults.steps) - 1
        guidance.progress = (((settings.guidance ?: defaults.guidance) - LEAST_GUIDANCE) / GUIDANCE_STEP).toInt()
        strength.progress = ((settings.strength ?: defaults.strength) * STRENGTH_PARTS).toInt() - 1
        screen.view<View>(R.id.guidance_group).show(opened.isGuided)
        screen.view<View>(R.id.negative_group).show(opened.takesNegative)
        val chosen = settings.sampler?.takeIf { it in opened.samplers } ?: opened.pipeline.steps.defaultSampler
        sampler.fill(opened.samplers.map(::nameOf), opened.samplers.indexOf(chosen)) {
            settings.sampler = opened.samplers[it]
        }
        val units = listOf(null) + opened.units
        val labels = units.map { unit ->
            unit?.let { Messages(screen.resources).unit(it) } ?: screen.getString(R.string.unit_default)
        }
        screen.view<Spinner>(R.id.unit).fill(labels, Math.max(units.indexOf(settings.unit), 0)) {
            settings.unit =
                units[it]
        }
        showValues()
    }

    private fun showValues() {
        val guided = guidanceOf(guidance.progress)
        val isUsed = guided > LEAST_GUIDANCE
        val words = if (isUsed) {
            String.format(
                Locale.getDefault(),
                "%.1f",
                guided,
            )
        } else {
            screen.getString(R.string.guidance_none)
        }
        val percent = Math.round(strengthOf(strength.progress) * 100).toInt()
        value(R.id.steps_value, steps, "${stepsOf(steps.progress)}")
        value(R.id.guidance_value, guidance, words)
        value(R.id.strength_value, strength, screen.getString(R.string.percent, percent))
    }

    /** Shows a slider's value beside it, and tells it to a screen reader. */
    private fun value(id: Int, slider: SeekBar, words: String) {
        screen.view<TextView>(id).text = words
        val label = when (slider) {
            steps -> R.string.steps
            guidance -> R.string.guidance
            else -> R.string.strength
        }
        slider.contentDescription = "${screen.getString(label)}: $words"
    }

    private fun stepsOf(progress: Int) = progress + 1

    private fun guidanceOf(progress: Int) = LEAST_GUIDANCE + progress * GUIDANCE_STEP

    private fun strengthOf(progress: Int) = (progress + 1.0) / STRENGTH_PARTS

    private fun View.show(isShown: Boolean) {
        visibility = if (isShown) View.VISIBLE else View.GONE
    }

    private fun EditText.onText(change: (String) -> Unit) = addTextChangedListener(object : TextWatcher {
        override fun afterTextChanged(text: Editable) = change("$text")

        override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int) = Unit

        override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int) = Unit
    })

    private fun SeekBar.onMove(change: (Int) -> Unit) =
        setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, progress: Int, fromUser: Boolean) {
                if (fromUser) change(progress)
                showValues()
            }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })

    private fun Spinner.fill(labels: List<String>, chosen: Int, change: (Int) -> Unit) {
        adapter = ArrayAdapter(screen, R.layout.item_choice, labels).apply {
            setDropDownViewResource(R.layout.item_choice_open)
        }
        setSelection(chosen)
        onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) =
                change(position)

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
    }

    private companion object {
        const val LEAST_GUIDANCE = 1.0
        const val MOST_GUIDANCE = 20.0
        const val GUIDANCE_STEP = 0.5
        const val STRENGTH_PARTS = 20
        val NAMES = mapOf(
            "ddim" to "DDIM",
            "euler" to "Euler",
            "euler_ancestral" to "Euler ancestral",
            "dpmpp_2m" to "DPM++ 2M",
            "dpmpp_2m_karras" to "DPM++ 2M Karras",
            "pndm" to "PNDM",
        )

        /** The field's name of a sampler, or that of the bundle. */
        fun nameOf(sampler: String): String = NAMES[sampler] ?: sampler
    }
}
