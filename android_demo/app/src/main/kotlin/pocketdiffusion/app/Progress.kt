package pocketdiffusion.app

import android.content.res.Resources
import java.util.Locale

/** How far something is, in words. */
class Progress(private val resources: Resources) {
    fun title(work: Work): String = when (work.kind) {
        Work.Kind.OPEN -> resources.getString(R.string.work_open, work.name)
        Work.Kind.IMPORT -> resources.getString(R.string.work_import, work.name)
        Work.Kind.DOWNLOAD -> resources.getString(R.string.work_download)
        Work.Kind.DRAW -> resources.getString(stage(work.stage))
        Work.Kind.TEST -> resources.getString(R.string.work_test)
    }

    fun text(work: Work): String {
        val megabytes = Messages(resources)::megabytes
        return when (work.kind) {
            Work.Kind.DRAW -> steps(work)
            Work.Kind.TEST -> test(work)
            else -> when {
                work.total > 0 -> resources.getString(R.string.part_of, megabytes(work.done), megabytes(work.total))
                work.done > 0 -> megabytes(work.done)
                else -> ""
            }
        }
    }

    /** Seconds with as many digits as say something. */
    fun seconds(seconds: Double): String = when {
        seconds < 0.1 -> resources.getString(R.string.milliseconds, Math.round(seconds * 1000))
        seconds < 10 -> resources.getString(R.string.seconds, String.format(Locale.getDefault(), "%.1f", seconds))
        seconds < 100 -> resources.getString(R.string.seconds, "${Math.round(seconds)}")
        else -> resources.getString(R.string.minutes, Math.round(seconds / 60))
    }

    private fun steps(work: Work): String {
        val perStep = work.secondsPerStep ?: return ""
        val parts = listOfNotNull(
            resources.getString(R.string.step_of, work.done, work.total),
            resources.getString(R.string.per_step, seconds(perStep)),
            work.secondsLeft?.takeIf { it >= 1 }?.let { resources.getString(R.string.time_left, seconds(it)) },
        )
        return parts.joinToString(resources.getString(R.string.separator))
    }

    /** How many parts of a self-test are done, and which is next. */
    private fun test(work: Work): String {
        if (work.total == 0L) return ""
        val (graph, unit) = work.stage.substringBefore(ON) to work.stage.substringAfter(ON, "")
        val subject = when {
            unit.isNotEmpty() -> resources.getString(R.string.graph_on, graph, unit.uppercase(Locale.ROOT))
            graph == "picture" -> resources.getString(R.string.test_picture)
            else -> resources.getString(R.string.vectors)
        }
        val count = resources.getString(R.string.part_of, "${work.done}", "${work.total}")
        return listOf(count, subject).joinToString(resources.getString(R.string.separator))
    }

    private fun stage(name: String): Int = when (name) {
        "encode_image" -> R.string.stage_photo
        "denoise" -> R.string.stage_denoise
        "decode" -> R.string.stage_decode
        else -> R.string.stage_prompt
    }

    private companion object {
        const val ON = " on " // as the engine joins a graph and its unit
    }
}
