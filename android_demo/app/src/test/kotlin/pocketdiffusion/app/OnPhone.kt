package pocketdiffusion.app

import android.app.Activity
import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.ScrollView
import android.widget.TextView
import org.junit.Assert.fail
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.shadows.ShadowStatFs
import pocketdiffusion.engine.Bundle
import pocketdiffusion.engine.GraphEngine
import java.io.File
import java.nio.file.FileSystemException
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths

/** What tests do with the phone: put bundles on it, wait, look at the screen. */
object OnPhone {
    val app: PocketApp get() = RuntimeEnvironment.getApplication() as PocketApp

    /** Bundles of the built-in model: `-Dbundles=FOLDER:FOLDER`. */
    val bundles: List<Path> by lazy {
        val folders = System.getProperty("bundles").orEmpty().split(File.pathSeparator).filter { it.isNotEmpty() }
        check(folders.isNotEmpty()) { "these tests need -Dbundles=FOLDER, bundles of the built-in model" }
        folders.map { Paths.get(it) }
    }

    /** The first of them that holds ONNX in float32, which is exact enough to be compared with the original. */
    fun bundle(): Path = exact

    private val exact: Path by lazy { first("holds ONNX in float32") { true } }

    /** The first of them that is as exact, and whose UNet is several graphs. */
    val split: Path by lazy { first("holds several graphs of a UNet") { "unet_1" in it } }

    private fun first(what: String, isWanted: (Set<String>) -> Boolean): Path = bundles.firstOrNull { folder ->
        val bundle = Bundle.open(folder)
        val graphs = if ("onnx" in bundle.manifest.formats) bundle.pipeline(listOf("onnx")).graphs else emptyMap()
        graphs.isNotEmpty() && graphs.values.all { it.storage == "float32" } && isWanted(graphs.keys)
    } ?: error("none of -Dbundles $what")

    /** The smallest of them that holds ONNX, where nothing but its files matters. */
    val small: Path by lazy {
        bundles.map { Bundle.open(it) }.filter { "onnx" in it.manifest.formats }.minByOrNull(::bytesOf)!!.folder
    }

    fun bytesOf(bundle: Bundle): Long = bundle.manifest.files.run { paths.sumOf { get(it)!!.size } }

    /** Pushes a bundle as adb does. Its large files are links to those given: replace them, write into none. */
    fun push(bundle: Path = bundle(), name: String = "emoji"): File {
        val folder = File(app.getExternalFilesDir("bundles"), name)
        Files.walk(bundle).use { files ->
            for (file in files.filter { Files.isRegularFile(it) }) {
                val copy = folder.toPath().resolve(bundle.relativize(file))
                Files.createDirectories(copy.parent)
                if (Files.size(file) < LARGE || !link(copy, file)) Files.copy(file, copy)
            }
        }
        return folder
    }

    private fun link(copy: Path, file: Path): Boolean = try {
        Files.createLink(copy, file)
        true
    } catch (_: FileSystemException) { // another disk
        false
    }

    /** Has the studio use an engine that is changed; before the app is started. */
    fun change(engine: (GraphEngine) -> GraphEngine) {
        app.engines = { context ->
            object : Engines(context) {
                override fun engineFor(bundle: Bundle) = engine(super.engineFor(bundle))
            }
        }
    }

    /** Starts the app from the launcher. */
    fun launch(intent: Intent = Intent()): ActivityController<MainActivity> {
        makeRoom()
        return Robolectric.buildActivity(MainActivity::class.java, intent).setup()
    }

    /** Has the phone some storage left for bundles, of which Robolectric's has none. */
    fun makeRoom() = ShadowStatFs.registerStats(File(app.filesDir, "bundles"), 1 shl 20, 1 shl 20, 1 shl 20)

    /** The main screen, once the bundle is open. */
    fun open(): MainActivity = launch().get().also {
        awaitIdle()
        check(app.studio.opened != null) { "no bundle was opened: ${app.studio.problem}" }
    }

    fun give(megabytes: Long) {
        val manager = app.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager
        shadowOf(manager).setMemoryInfo(ActivityManager.MemoryInfo().apply { availMem = megabytes shl 20 })
    }

    /** Waits until it is so; what other threads posted is done meanwhile. */
    fun await(what: String, seconds: Int = 60, isSo: () -> Boolean) {
        val end = System.nanoTime() + seconds * 1_000_000_000L
        while (true) {
            shadowOf(Looper.getMainLooper()).idle()
            if (isSo()) return
            if (System.nanoTime() > end) fail("$what did not happen within $seconds s; ${app.studio.problem}")
            Thread.sleep(5)
        }
    }

    fun awaitIdle() = await("the end of the work") { app.studio.work == null }

    /** What a view says, or nothing where it or what holds it is hidden. */
    fun Activity.words(id: Int): String {
        val view = findViewById<TextView>(id)!!
        val isShown = generateSequence<View>(view) { it.parent as? View }.all { it.visibility == View.VISIBLE }
        return if (isShown) "${view.text}" else ""
    }

    fun Activity.press(id: Int) {
        val view = findViewById<View>(id)!!
        check(view.isShown && view.isEnabled) { "${resources.getResourceEntryName(id)} cannot be pressed" }
        view.performClick()
    }

    /** The screen as it is before anything is touched: no field has the focus, all is at its top. */
    fun rest(activity: Activity) {
        val views = viewsOf(activity.window.decorView)
        for (view in views) if (view is EditText || view is TextView && view.isTextSelectable) view.isFocusable = false
        shadowOf(Looper.getMainLooper()).idle()
        for (view in views) if (view is ScrollView) view.scrollTo(0, 0)
    }

    private fun viewsOf(view: View): List<View> {
        val inside = if (view is ViewGroup) (0 until view.childCount).map(view::getChildAt) else emptyList()
        return inside.flatMap(::viewsOf) + view
    }

    /** Shows the part of the screen in which a view is. */
    fun Activity.scrollTo(id: Int) {
        shadowOf(Looper.getMainLooper()).idle() // what was changed has its place
        val view = findViewById<View>(id)!!
        view.requestRectangleOnScreen(android.graphics.Rect(0, 0, view.width, view.height), true)
        shadowOf(Looper.getMainLooper()).idle()
    }

    /** What the screen shows, as a file of the folder that -Dscreenshots names. */
    fun screenshot(activity: Activity, name: String): Bitmap {
        shadowOf(Looper.getMainLooper()).idle()
        val view = activity.window.decorView
        val bitmap = Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888)
        view.draw(Canvas(bitmap))
        val folder = File(System.getProperty("screenshots")).apply { mkdirs() }
        File(folder, "$name.png").outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
        return bitmap
    }

    private const val LARGE = 1L shl 20
}
