package pocketdiffusion.app

import android.app.Application
import android.net.Uri
import android.os.Handler
import android.os.Looper
import pocketdiffusion.engine.Cancelled
import pocketdiffusion.engine.DrawListener
import pocketdiffusion.engine.HttpRemote
import pocketdiffusion.engine.Png
import pocketdiffusion.engine.Remote
import pocketdiffusion.engine.Residency
import pocketdiffusion.engine.StepDone
import pocketdiffusion.engine.UnitVerdicts
import pocketdiffusion.engine.Unreadable
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.concurrent.Executors

/** Something else is being done. */
class Busy : Exception("the app is busy with something else")

/**
 * What the app is doing and has done. It outlives every screen, so that a rotation loses nothing. One thing is done at
 * a time, on a thread of its own; all that is read here is written by the main thread.
 */
class Studio(private val app: Application, private val engines: Engines) {
    val settings = Settings(app)
    val library = Library(app)
    val phone = Phone(app)
    private val mark = Interruption(File(app.filesDir, "drawing.json"))
    private val picture = File(app.filesDir, "last.png")
    private val verdicts = UnitVerdicts(phone.device().os, File(app.filesDir, "units.txt").toPath())
    private val pace = Pace(MILLIS_BETWEEN)

    /** The photo to start from, as the screen shows it. */
    val thumbnail = Thumbnail(app.contentResolver, ::thumbnailRead)

    /** The bundle that is drawn with. */
    var opened: Opened? = null
        private set

    /** What is done now. */
    var work: Work? = null
        private set
    var finished: Finished? = Finished.read(picture)
        private set
    var tested: Tested? = null
        private set

    /** What went wrong last, until the next thing is begun. */
    var problem: Throwable? = null
        private set

    /** What was being drawn when the last process ended, and why that ended. */
    var interrupted: Wish? = mark.read()
        private set
    val ended: Phone.End = if (interrupted == null) Phone.End.UNKNOWN else phone.lastEnd()

    private val listeners = LinkedHashSet<() -> Unit>()
    private val main = Handler(Looper.getMainLooper())
    private val worker = Executors.newSingleThreadExecutor { Thread(null, it, "engine", STACK_BYTES) }

    init {
        mark.end()
        worker.execute(library::clearImports)
    }

    fun listen(listener: () -> Unit) = listeners.add(listener)

    fun forget(listener: () -> Unit) = listeners.remove(listener)

    /** Opens the bundle chosen last, or the first of the library; before that, unpacks what came with the app. */
    fun start() {
        if (work != null || opened != null) return
        val openChosen = {
            val chosen = library.find(settings.bundle) ?: library.first()
            if (chosen != null) open(chosen)
        }
        unpackShipped(then = openChosen, failed = {
            openChosen() // what is there can be drawn with
            if (it !is Cancelled) show(it)
        })
    }

    /**
     * Unpacks the bundles that came with the app, each once, and again where an update of the app brought another one:
     * those that were deleted since do not come back.
     */
    fun unpackShipped(failed: (Throwable) -> Unit = {}, then: () -> Unit) {
        val names = library.shipped().filter(::isToUnpack)
        if (names.isEmpty()) return then()
        val own = Work(Work.Kind.IMPORT, names.joinToString())
        val unpack = {
            for (name in names) {
                library.openShipped(name).use { zip -> library.import(name, zip) { report(own, it, 0) } }
                settings.noteUnpacked(name)
                settings.noteUnpackedId(name, library.shippedId(name))
            }
        }
        begin(own, unpack, failed) { then() }
    }

    /** Compares all files of a bundle with the manifest, and draws with it from now on. */
    fun open(place: Place, then: () -> Unit = {}, failed: (Throwable) -> Unit = {}) {
        val own = Work(Work.Kind.OPEN, place.name)
        if (settings.bundle != place.name) settings.forgetBundle()
        begin(own, task = { look(own, place) }, failed) {
            settings.bundle = place.name
            opened = it
            tested = null
            then()
        }
    }

    /** Unpacks a zip that the person chose, and draws with it. */
    fun importZip(zip: Uri, displayName: String) {
        val name = library.freeName(displayName)
        val own = Work(Work.Kind.IMPORT, name)
        val unpack = {
            openZip(zip, displayName).use { library.import(name, it) { done -> report(own, done, 0) } }
        }
        begin(own, unpack) { open(it) }
    }

    fun download(address: String, remote: Remote = HttpRemote(address)) {
        settings.address = address
        val own = Work(Work.Kind.DOWNLOAD, address)
        begin(own, { library.download(address, remote) { done, total -> report(own, done, total) } }) { open(it) }
    }

    fun delete(place: Place) {
        if (opened?.place == place) opened = null
        library.delete(place)
        if (place.origin == Place.Origin.OWN) settings.noteUnpackedId(place.name, null)
        changed()
    }

    fun delete(unfinished: Unfinished) {
        library.delete(unfinished)
        changed()
    }

    fun draw(wish: Wish, then: (Finished) -> Unit = {}, failed: (Throwable) -> Unit = {}) {
        val opened = opened ?: return
        val own = Work(Work.Kind.DRAW, wish.prompt)
        interrupted = null
        begin(own, task = { drawNow(own, opened, wish) }, failed) {
            finished = it
            if (wish.seed == settings.seed) settings.isSeedDrawn = true
            then(it)
        }
    }

    fun test(then: (Tested) -> Unit = {}, failed: (Throwable) -> Unit = {}) {
        val opened = opened ?: return
        val own = Work(Work.Kind.TEST, opened.place.name)
        val run = {
            SelfTesting(phone, opened).run(own.cancellation) { stage, done, total ->
                report(own, done.toLong(), total.toLong(), stage)
            }
        }
        begin(own, run, failed) {
            tested = it
            then(it)
        }
    }

    fun cancel() {
        work?.cancellation?.cancel()
    }

    fun dismiss() {
        problem = null
        interrupted = null
        changed()
    }

    /** Tells the person of something that went wrong on a screen. */
    fun show(error: Throwable) {
        problem = error
        changed()
    }

    private fun isToUnpack(shipped: String): Boolean {
        val place = library.find(shipped) ?: return !settings.wasUnpacked(shipped)
        val unpacked = settings.unpackedId(shipped) ?: return false // it is not what came with the app
        return place != opened?.place && unpacked != library.shippedId(shipped)
    }

    private fun thumbnailRead(error: Throwable?) {
        if (error == null) return changed()
        settings.photo = null // and not at each start again
        show(error as? PhotoUnreadable ?: PhotoUnreadable(error))
    }

    /** Whether a file could be written that can be done without. */
    private fun tryTo(write: () -> Unit): Boolean = try {
        write()
        true
    } catch (_: IOException) {
        false
    }

    private fun openZip(zip: Uri, name: String): InputStream = try {
        app.contentResolver.openInputStream(zip) ?: throw IOException("it is not there")
    } catch (error: IOException) {
        throw Unreadable(name, error)
    } catch (error: SecurityException) { // the app that has it gives it no more
        throw Unreadable(name, error)
    }

    private fun look(own: Work, place: Place): Opened {
        val bundle = pocketdiffusion.engine.Bundle.open(place.folder.toPath(), library.digests)
        bundle.checkAll { done, total -> report(own, done, total) }
        return Opened(place, bundle, engines.engineFor(bundle), verdicts)
    }

    private fun drawNow(own: Work, opened: Opened, wish: Wish): Finished {
        val pipeline = opened.pipeline
        val photo = wish.photo?.let { Photos.read(app.contentResolver, it, pipeline.width, pipeline.height) }
        val residency = opened.residency(photo != null, phone.leftBytes(), wish.leastMemory)
        val times = ArrayList<Double>()
        val listener = object : DrawListener {
            private val previews = Pace(MILLIS_BETWEEN_PREVIEWS)

            override fun onStage(name: String) = post(own) { own.stage = name }

            override fun onStep(step: StepDone) {
                times += step.seconds
                val perStep = median(times)
                val preview = if (!previews.allows("preview")) {
                    null
                } else {
                    step.preview()?.let { Bitmaps.of(it, Bitmaps.PREVIEW_SIDE) }
                }
                post(own) {
                    own.done = step.row.toLong()
                    own.total = step.rows.toLong()
                    own.secondsPerStep = perStep
                    if (preview != null) own.preview = preview
                }
            }
        }
        tryTo { mark.begin(wish) }
        try {
            opened.generator(residency, wish.unit).use { generator ->
                val drawn = generator.draw(wish.request(photo), listener, own.cancellation)
                val png = Png.write(drawn.picture, drawn.facts)
                val kept = tryTo { picture.replaceWith(png) }
                return Finished(png, Bitmaps.of(drawn.picture), drawn.facts).apply {
                    cut = drawn.cut
                    negativeCut = drawn.negativeCut
                    seconds = drawn.seconds
                    secondsPerStep = median(times)
                    fallbacks = generator.fallbacks
                    isOneByOne = residency == Residency.CALL && !wish.leastMemory
                    isKept = kept
                }
            }
        } finally {
            mark.end()
        }
    }

    private fun <T> begin(own: Work, task: () -> T, failed: (Throwable) -> Unit = {}, then: (T) -> Unit) {
        if (work != null) return failed(Busy())
        problem = null
        work = own
        if (own.isLong) WorkService.start(app)
        changed()
        worker.execute {
            val result = runCatching(task) // errors of every kind, such as no memory, are told and end nothing
            main.post {
                work = null
                result.onSuccess(then).onFailure {
                    if (it !is Cancelled) problem = it
                    failed(it)
                }
                changed()
            }
        }
    }

    /** On the worker's thread: says how far it is. Throws Cancelled where the person wished it. */
    private fun report(own: Work, done: Long, total: Long, stage: String = "") {
        own.cancellation.check()
        if (pace.allows(stage) || done == total) {
            post(own) {
                own.done = done
                own.total = total
                own.stage = stage
            }
        }
    }

    private fun post(own: Work, change: () -> Unit) {
        main.post {
            change()
            if (work === own) changed()
        }
    }

    private fun changed() = listeners.toList().forEach { it() }

    private companion object {
        const val STACK_BYTES = 8L shl 20
        const val MILLIS_BETWEEN = 100L
        const val MILLIS_BETWEEN_PREVIEWS = 200L // a step's seconds do not count what its preview takes

        fun median(times: List<Double>): Double? = times.sorted().let { it.getOrNull(it.size / 2) }
    }
}
