package pocketdiffusion.app

import android.content.res.ColorStateList
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.TextView
import pocketdiffusion.engine.DeviceReport
import pocketdiffusion.engine.UnitResult
import pocketdiffusion.engine.Verdict
import java.util.Locale

/** The page 'Is it the same model?': the original's picture beside the phone's, and each part on each unit. */
class SelfTestActivity : Screen(R.layout.self_test) {
    private val words get() = Decibels(resources)

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        view<View>(R.id.back).setOnClickListener { finish() }
        view<View>(R.id.draw).setOnClickListener { studio.test() }
        view<View>(R.id.share_report).setOnClickListener { shareReport() }
    }

    override fun show() {
        showProblem(studio.problem)
        showNotice(null)
        val tested = studio.tested
        showAction(if (tested == null) R.string.test_run else R.string.test_again, canBegin = studio.opened != null)
        for (id in RESULTS) view<View>(id).show(tested != null)
        if (tested != null) show(tested)
    }

    private fun show(tested: Tested) {
        val report = tested.report
        view<ImageView>(R.id.verdict_icon).mark(report.passed)
        val title = when {
            report.passed -> R.string.verdict_same
            report.isWhole -> R.string.verdict_other
            else -> R.string.verdict_none
        }
        view<TextView>(R.id.verdict_title).setText(title)
        text(R.id.verdict_text, verdictWords(report))
        showPictures(tested)
        val graphs = view<ViewGroup>(R.id.graph_list)
        graphs.removeAllViews()
        for (result in report.graphs) graphs.addView(graphRow(result, graphs))
        val right = report.vectors.count { it.passed }
        text(
            R.id.vectors_text,
            if (right == report.vectors.size) {
                getString(R.string.vectors_all, right, right)
            } else {
                val wrong = report.vectors.filter { !it.passed }.joinToString { it.subject }
                getString(R.string.vectors_some, right, report.vectors.size, wrong)
            },
        )
    }

    /** What is wrong, or that nothing is, and which units draw nothing here. */
    private fun verdictWords(report: DeviceReport): String {
        val (drawing, unused) = report.graphs.filter { !it.passed }.partition { it.draws }
        val others = (report.vectors + listOfNotNull(report.picture)).filter { !it.passed }.map { it.subject }
        val wrong = drawing.map(::name) + others
        val said = when {
            wrong.isNotEmpty() -> getString(R.string.verdict_other_text, wrong.joinToString())
            report.isWhole -> getString(R.string.verdict_same_text)
            else -> getString(R.string.verdict_none_text)
        }
        val left = if (unused.isEmpty()) {
            null
        } else {
            getString(
                R.string.units_unused,
                unused.joinToString(transform = ::name),
            )
        }
        return listOfNotNull(said, left).joinToString("\n")
    }

    private fun name(result: UnitResult) =
        getString(R.string.graph_on, result.graph, result.unit.uppercase(Locale.ROOT))

    private fun showPictures(tested: Tested) {
        val verdict = tested.report.picture
        view<View>(R.id.pictures).show(tested.original != null)
        view<ImageView>(R.id.original).setImageBitmap(tested.original)
        view<ImageView>(R.id.own).setImageBitmap(tested.own)
        if (verdict == null) return
        val controls = words.controls(verdict.psnrDb, tested.controls)
        text(R.id.picture_words, "${words.picture(verdict, tested.own != null)} $controls")
        val list = view<ViewGroup>(R.id.controls)
        list.removeAllViews()
        val longest = BAR_DECIBELS
        list.addView(measure(list, getString(R.string.this_phone), verdict.psnrDb, longest, strong = true))
        for ((name, decibels) in tested.controls) list.addView(measure(list, words.control(name), decibels, longest))
    }

    private fun measure(
        parent: ViewGroup,
        name: String,
        decibels: Double,
        longest: Double,
        strong: Boolean = false,
    ): View {
        val row = layoutInflater.inflate(R.layout.item_measure, parent, false)
        row.findViewById<View>(R.id.icon)!!.show(false)
        row.findViewById<View>(R.id.note)!!.show(false)
        row.findViewById<TextView>(R.id.name)!!.text = name
        row.findViewById<TextView>(R.id.value)!!.text = words.decibels(decibels)
        row.findViewById<ProgressBar>(R.id.bar)!!.apply {
            progress = ((decibels / longest).coerceIn(0.0, 1.0) * max).toInt()
            if (!strong) progressTintList = ColorStateList.valueOf(getColor(R.color.text_soft))
        }
        return row
    }

    private fun graphRow(result: UnitResult, parent: ViewGroup): View {
        val row = layoutInflater.inflate(R.layout.item_measure, parent, false)
        val worst: Verdict? = result.outputs.values.minByOrNull { it.psnrDb }
        row.findViewById<ImageView>(R.id.icon)!!.mark(result.passed)
        row.findViewById<TextView>(R.id.name)!!.text = name(result)
        row.findViewById<TextView>(R.id.value)!!.text = worst?.let { words.of(it) }.orEmpty()
        row.findViewById<View>(R.id.bar)!!.show(false)
        val time = result.medianCallSeconds ?: result.firstCallSeconds
        val facts = listOfNotNull(
            worst?.floorDb?.let { getString(R.string.graph_facts, it) },
            time?.let { getString(R.string.graph_time, Progress(resources).seconds(it)) },
            result.error?.let { getString(R.string.engine_says, it) },
        )
        row.findViewById<TextView>(R.id.note)!!.text = facts.joinToString(getString(R.string.separator))
        return row
    }

    private fun ImageView.mark(isRight: Boolean) {
        setImageResource(if (isRight) R.drawable.ic_check else R.drawable.ic_warn)
        imageTintList = ColorStateList.valueOf(getColor(if (isRight) R.color.accent else R.color.error))
    }

    private fun shareReport() {
        val tested = studio.tested ?: return
        val json = tested.report.toJson().toByteArray()
        share(json, "device_report.json", "application/json")
    }

    private companion object {
        const val BAR_DECIBELS = 100.0
        val RESULTS = listOf(R.id.verdict, R.id.pictures, R.id.graphs, R.id.vectors, R.id.share_report)
    }
}
