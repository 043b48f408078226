package pocketdiffusion.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Outline
import android.graphics.Path
import android.util.AttributeSet
import android.widget.FrameLayout

/** A square as wide as there is room, with rounded corners by its background; on large screens no wider than needed. */
class SquareFrame(context: Context, attributes: AttributeSet?) : FrameLayout(context, attributes) {
    init {
        clipToOutline = true
    }

    override fun onMeasure(widthSpec: Int, heightSpec: Int) {
        val most = (MOST_DP * resources.displayMetrics.density).toInt()
        val height = if (MeasureSpec.getMode(heightSpec) ==
            MeasureSpec.UNSPECIFIED
        ) {
            most
        } else {
            MeasureSpec.getSize(heightSpec)
        }
        val side = minOf(MeasureSpec.getSize(widthSpec), height, most)
        val exactly = MeasureSpec.makeMeasureSpec(side, MeasureSpec.EXACTLY)
        super.onMeasure(exactly, exactly)
    }

    override fun dispatchDraw(canvas: Canvas) {
        if (!canvas.isHardwareAccelerated) clipAsOutline(canvas)
        super.dispatchDraw(canvas)
    }

    /** What `clipToOutline` does where the graphics unit draws. */
    private fun clipAsOutline(canvas: Canvas) {
        val outline = Outline().also { outlineProvider.getOutline(this, it) }
        val path = Path()
        path.addRoundRect(0f, 0f, width.toFloat(), height.toFloat(), outline.radius, outline.radius, Path.Direction.CW)
        canvas.clipPath(path)
    }

    private companion object {
        const val MOST_DP = 560
    }
}
