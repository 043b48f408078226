package pocketdiffusion.app

import android.app.Activity
import android.os.Build
import android.os.Bundle
import android.view.View
import android.view.WindowInsets
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ProgressBar
import android.widget.TextView

/** A screen that shows the studio's state, and again whenever that changes. */
abstract class Screen(private val layout: Int) : Activity() {
    val studio get() = (application as PocketApp).studio
    protected val messages get() = Messages(resources)
    private val listener = { show() }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(layout)
        view<View>(R.id.root).setOnApplyWindowInsetsListener { root, insets ->
            pad(root, insets)
            insets
        }
        view<View>(R.id.cancel).setOnClickListener { studio.cancel() }
        view<View>(R.id.problem_close).setOnClickListener { studio.dismiss() }
    }

    override fun onStart() {
        super.onStart()
        studio.listen(listener)
        show()
    }

    override fun onStop() {
        studio.forget(listener)
        super.onStop()
    }

    /** Brings the views into the studio's state. */
    protected abstract fun show()

    fun <T : View> view(id: Int): T = findViewById<T>(id)!!

    protected fun text(id: Int, words: CharSequence?) {
        val view = view<TextView>(id)
        if ("${view.text}" != "${words ?: ""}") view.text = words
        view.show(!words.isNullOrEmpty())
    }

    protected fun View.show(isShown: Boolean) {
        visibility = if (isShown) View.VISIBLE else View.GONE
    }

    /** What went wrong, as a card with a title, each file, what to do, and the engine's own words. */
    protected fun showProblem(error: Throwable?) {
        view<View>(R.id.problem).show(error != null)
        val message = messages.of(error ?: return)
        text(R.id.problem_title, message.title)
        text(R.id.problem_files, message.files.joinToString("\n"))
        text(R.id.problem_text, message.text)
        text(R.id.problem_detail, message.detail)
    }

    /** Offers a file to other apps. */
    protected fun share(bytes: ByteArray, name: String, type: String) = try {
        startActivity(Gallery(this).shareIntent(bytes, name, type))
    } catch (error: NotWritten) {
        studio.show(error)
    }

    protected fun showNotice(words: String?, action: Int? = null, onAction: () -> Unit = {}) {
        view<LinearLayout>(R.id.notice).show(words != null)
        text(R.id.notice_text, words)
        val button = view<Button>(R.id.notice_action)
        button.show(action != null)
        if (action != null) button.setText(action)
        button.setOnClickListener { onAction() }
    }

    /** The bar at the bottom: how far the work is, or the button that begins something. */
    protected fun showAction(label: Int, canBegin: Boolean) {
        val work = studio.work
        view<View>(R.id.progress_group).show(work != null)
        val button = view<Button>(R.id.draw)
        button.show(work == null)
        button.isEnabled = canBegin
        if (button.text != getString(label)) button.setText(label)
        if (work == null) return
        val words = Progress(resources)
        text(R.id.progress_title, words.title(work))
        text(R.id.progress_text, words.text(work))
        view<ProgressBar>(R.id.progress_bar).apply {
            isIndeterminate = false
            progress = ((work.fraction ?: 0.0) * max).toInt()
        }
    }

    @Suppress("DEPRECATION") // what Android 8 to 10 have
    private fun pad(root: View, insets: WindowInsets) {
        if (Build.VERSION.SDK_INT >= 30) {
            padAround(root, insets)
        } else {
            root.setPadding(
                insets.systemWindowInsetLeft,
                insets.systemWindowInsetTop,
                insets.systemWindowInsetRight,
                insets.systemWindowInsetBottom,
            )
        }
    }

    @SinceApi(30)
    private fun padAround(root: View, insets: WindowInsets) {
        val kinds = WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout() or WindowInsets.Type.ime()
        val around = insets.getInsets(kinds)
        root.setPadding(around.left, around.top, around.right, around.bottom)
    }
}
