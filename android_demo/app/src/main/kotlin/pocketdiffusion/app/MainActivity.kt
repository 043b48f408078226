package pocketdiffusion.app

import android.Manifest
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Rect
import android.os.Build
import android.os.Bundle
import android.view.View
import android.view.inputmethod.InputMethodManager
import android.widget.ImageView
import android.widget.ScrollView
import android.widget.Toast

/** The screen that draws: the picture, what to draw, how, and the state of the phone. */
class MainActivity : Screen(R.layout.main) {
    private val settings get() = studio.settings
    private lateinit var controls: Controls
    private var shownProblem: Throwable? = null

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        controls = Controls(this, settings)
        view<View>(R.id.draw).setOnClickListener { draw() }
        view<View>(R.id.choose_bundle).setOnClickListener { open(BundlesActivity::class.java) }
        view<View>(R.id.empty_action).setOnClickListener { open(BundlesActivity::class.java) }
        view<View>(R.id.same_model).setOnClickListener { open(SelfTestActivity::class.java) }
        view<View>(R.id.save).setOnClickListener { save() }
        view<View>(R.id.share).setOnClickListener { share() }
        view<View>(R.id.photo_choose).setOnClickListener { choosePhoto() }
        view<View>(R.id.photo_remove).setOnClickListener {
            settings.photo = null
            show()
        }
        val isAsked = state == null && Headless.run(this, intent) // not again when the system makes the screen anew
        if (!isAsked || studio.opened == null) studio.start()
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        Headless.run(this, intent)
    }

    override fun show() {
        val opened = studio.opened
        controls.show(opened)
        showProblem(studio.problem)
        if (studio.problem !== shownProblem && studio.problem != null) view<ScrollView>(R.id.scroll).scrollTo(0, 0)
        shownProblem = studio.problem
        showNotices()
        showPicture()
        showTop(opened)
        PhoneCard(this).show(opened, hasPhoto = settings.photo != null)
        showAction(R.string.draw, canBegin = opened != null)
        view<View>(R.id.controls_group).show(opened != null)
        view<View>(R.id.action_group).show(opened != null || studio.work != null)
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val photo = data?.data
        if (request != PHOTO || result != RESULT_OK || photo == null) return
        try {
            contentResolver.takePersistableUriPermission(photo, Intent.FLAG_GRANT_READ_URI_PERMISSION)
        } catch (_: SecurityException) {
            // some apps give their photos for this start alone
        }
        settings.photo = photo
        show()
    }

    private fun draw(wish: Wish? = null) {
        val asked = wish ?: controls.wish() ?: return
        val mayNotify = Build.VERSION.SDK_INT < 33 ||
            checkSelfPermission(NOTIFICATIONS) == PackageManager.PERMISSION_GRANTED
        if (!mayNotify) requestPermissions(arrayOf(NOTIFICATIONS), 0)
        val keyboard = getSystemService(InputMethodManager::class.java)!!
        keyboard.hideSoftInputFromWindow(view<View>(R.id.draw).windowToken, 0)
        view<View>(R.id.prompt).clearFocus()
        view<View>(R.id.frame).let { it.requestRectangleOnScreen(Rect(0, 0, it.width, it.height)) }
        studio.draw(asked)
    }

    private fun choosePhoto() {
        val choose = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        startActivityForResult(choose, PHOTO)
    }

    private fun save() {
        val finished = studio.finished ?: return
        val isOld = Build.VERSION.SDK_INT < 29
        if (isOld && checkSelfPermission(STORAGE) != PackageManager.PERMISSION_GRANTED) {
            requestPermissions(arrayOf(STORAGE), SAVE)
            return
        }
        try {
            Gallery(this).save(finished.png, finished.name)
            Toast.makeText(this, R.string.saved, Toast.LENGTH_SHORT).show()
        } catch (error: NotSaved) {
            studio.show(error)
        }
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<String>, results: IntArray) {
        if (request != SAVE) return
        if (results.firstOrNull() == PackageManager.PERMISSION_GRANTED) save() else studio.show(NotSaved(null))
    }

    private fun share() {
        val finished = studio.finished ?: return
        share(finished.png, finished.name, Gallery.PNG)
    }

    private fun showTop(opened: Opened?) {
        text(R.id.bundle_name, opened?.manifest?.model ?: getString(R.string.app_name))
        val facts = opened?.let { "${it.manifest.target.title} · ${it.pipeline.width} × ${it.pipeline.height}" }
        text(R.id.bundle_facts, facts ?: getString(R.string.no_bundle))
        view<View>(R.id.same_model).show(opened != null)
    }

    private fun showNotices() {
        val finished = studio.finished
        val interrupted = studio.interrupted
        val isIdle = studio.work == null
        if (interrupted != null && isIdle) {
            val saves = studio.opened?.canSaveMemory(interrupted.photo != null) == true
            val again = if (saves) R.string.draw_again_less else R.string.draw_again
            val action = again.takeIf { studio.opened != null }
            showNotice(getString(wordsOf(studio.ended)), action) { draw(interrupted.copy(leastMemory = true)) }
            return
        }
        val words = listOfNotNull(
            finished?.cut?.takeIf { it.isNotEmpty() }?.let { getString(R.string.cut, it) },
            getString(R.string.not_kept).takeIf { finished?.isKept == false },
            getString(R.string.one_by_one).takeIf { finished?.isOneByOne == true },
            finished?.negativeCut?.takeIf { it.isNotEmpty() }?.let { getString(R.string.cut, it) },
        ) +
            finished?.fallbacks.orEmpty().map { (graph, why) ->
                getString(R.string.fallback, graph, messages.of(why).title)
            }
        showNotice(words.takeIf { it.isNotEmpty() && isIdle }?.joinToString("\n"))
    }

    private fun showPicture() {
        val work = studio.work?.takeIf { it.kind == Work.Kind.DRAW }
        val finished = studio.finished
        val bitmap = work?.preview ?: finished?.bitmap
        view<ImageView>(R.id.picture).apply {
            setImageBitmap(bitmap)
            val isPreview = work?.preview != null
            alpha = if (work != null && !isPreview) FADED else 1f
            val prompt = if (isPreview) work.name else finished?.facts?.get("prompt")
            contentDescription = prompt?.let { getString(R.string.picture_of, it) }
            show(bitmap != null)
        }
        view<View>(R.id.badge).show(work?.preview != null)
        view<View>(R.id.empty).show(bitmap == null)
        val lacksBundle = studio.opened == null && studio.work == null
        text(R.id.empty_text, getString(if (lacksBundle) R.string.empty_no_bundle else R.string.empty))
        view<View>(R.id.empty_action).show(lacksBundle)
        view<View>(R.id.picture_bar).show(finished != null && work == null)
        text(R.id.picture_facts, finished?.let(::factsOf))
    }

    private fun factsOf(finished: Finished): String {
        val words = Progress(resources)
        val told = getString(R.string.picture_facts, finished.facts["seed"], finished.facts["steps"])
        val (seconds, perStep) = finished.seconds to finished.secondsPerStep
        val time = if (seconds == null || perStep == null) {
            null
        } else {
            getString(R.string.picture_time, words.seconds(seconds), words.seconds(perStep))
        }
        return listOfNotNull(told, time).joinToString("\n")
    }

    private fun open(screen: Class<*>) = startActivity(Intent(this, screen))

    companion object {
        private const val PHOTO = 1
        private const val SAVE = 2
        private const val FADED = 0.35f
        private const val NOTIFICATIONS = Manifest.permission.POST_NOTIFICATIONS
        private const val STORAGE = Manifest.permission.WRITE_EXTERNAL_STORAGE

        /** The sentence that says how a drawing was ended. */
        fun wordsOf(end: Phone.End): Int = when (end) {
            Phone.End.UNKNOWN -> R.string.interrupted
            Phone.End.MEMORY -> R.string.interrupted_memory
            Phone.End.CRASH -> R.string.interrupted_crash
            Phone.End.PERSON -> R.string.interrupted_person
            Phone.End.SYSTEM -> R.string.interrupted_system
        }
    }
}
