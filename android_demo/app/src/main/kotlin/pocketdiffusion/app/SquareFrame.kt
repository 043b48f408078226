package pocketdiffusion.app

import android.content.Context
import android.util.AttributeSet
import android.widget.FrameLayout

/** A square as wide as there is room, with rounded corners by its background; on large screens no wider than needed. */
class SquareFrame(context: Context, attributes: AttributeSet?) : FrameLayout(context, attributes) {
    init {
        clipToOutline = true
    }

    override fun onMeasure(widthSpec: Int, heightSpec: Int) {
        val most = (MOST_DP * resources.displayMetrics.density).toInt()
        val height = if (MeasureSpec.getMode(heightSpec) == MeasureSpec.UNSPECIFIED) most else MeasureSpec.getSize(heightSpec)
        val side = minOf(MeasureSpec.getSize(widthSpec), height, most)
        val exactly = MeasureSpec.makeMeasureSpec(side, MeasureSpec.EXACTLY)
        super.onMeasure(exactly, exactly)
    }

    private companion object {
        const val MOST_DP = 560
    }
}
