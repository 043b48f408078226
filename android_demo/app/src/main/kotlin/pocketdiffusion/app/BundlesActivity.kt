package pocketdiffusion.app

import android.app.AlertDialog
import android.content.Intent
import android.database.Cursor
import android.net.Uri
import android.os.Bundle
import android.provider.OpenableColumns
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.TextView
import java.net.URI
import java.net.URISyntaxException
import kotlin.concurrent.thread

/** The bundles on this phone, each with what is wrong with it, and the three ways to bring another one here. */
class BundlesActivity : Screen(R.layout.bundles) {
    private var places: List<Place>? = null
    private var inspected: List<Inspected> = emptyList()
    private var unfinished: List<Unfinished> = emptyList()

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        view<View>(R.id.back).setOnClickListener { finish() }
        view<View>(R.id.import_zip).setOnClickListener { chooseZip() }
        view<View>(R.id.download).setOnClickListener { download() }
        view<EditText>(R.id.address).setText(studio.settings.address)
        text(R.id.adb_command, "adb push DIR /sdcard/Android/data/$packageName/files/bundles/")
    }

    override fun onResume() {
        super.onResume()
        places = null // something may have been pushed meanwhile
        show()
    }

    override fun show() {
        showProblem(studio.problem)
        showNotice(null)
        showAction(R.string.draw, canBegin = false)
        view<View>(R.id.draw).show(false)
        val isIdle = studio.work == null
        view<View>(R.id.action_group).show(!isIdle)
        view<Button>(R.id.import_zip).isEnabled = isIdle
        view<Button>(R.id.download).isEnabled = isIdle
        if (isIdle) {
            inspect()
            unfinished = studio.library.unfinished()
        }
        showList()
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val zip = data?.data
        if (request == ZIP && result == RESULT_OK && zip != null) studio.importZip(zip, nameOf(zip))
    }

    private fun chooseZip() {
        val choose = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*")
        choose.putExtra(Intent.EXTRA_MIME_TYPES, arrayOf("application/zip", "application/octet-stream"))
        startActivityForResult(choose, ZIP)
    }

    private fun nameOf(zip: Uri): String {
        val columns = arrayOf(OpenableColumns.DISPLAY_NAME)
        val cursor: Cursor? = contentResolver.query(zip, columns, null, null, null)
        val name = cursor?.use { if (it.moveToFirst()) it.getString(0) else null }
        return name ?: zip.lastPathSegment.orEmpty()
    }

    private fun download() {
        val address = view<EditText>(R.id.address).text.toString().trim()
        val isRight = try {
            URI(address).run { scheme == "https" && !host.isNullOrEmpty() }
        } catch (_: URISyntaxException) {
            false
        }
        text(R.id.address_error, if (isRight) null else getString(R.string.address_wrong))
        if (isRight) studio.download(address)
    }

    /** Looks at every place on a thread of its own: a bundle's table of files may be long. */
    private fun inspect() {
        val now = studio.library.places()
        if (now == places) return
        places = now
        thread {
            val found = now.map(studio.library::inspect)
            runOnUiThread {
                if (now == places) {
                    inspected = found
                    showList()
                }
            }
        }
    }

    private fun showList() {
        view<View>(R.id.none).show(places?.isEmpty() == true && unfinished.isEmpty())
        val list = view<ViewGroup>(R.id.list)
        list.removeAllViews()
        for (one in inspected) list.addView(item(one, list))
        for (one in unfinished) list.addView(item(one, list))
    }

    /** A download that broke off: it can go on, or be deleted. */
    private fun item(one: Unfinished, list: ViewGroup): View {
        val item = layoutInflater.inflate(R.layout.item_bundle, list, false)
        fun <T : View> part(id: Int): T = item.findViewById<T>(id)!!
        for (id in listOf(R.id.chosen, R.id.broken, R.id.credits)) part<View>(id).show(false)
        part<TextView>(R.id.name).text = one.name
        val facts = getString(R.string.unfinished, messages.megabytes(one.bytes))
        part<TextView>(R.id.facts).text = listOfNotNull(facts, one.address).joinToString("\n")
        part<Button>(R.id.use).apply {
            setText(R.string.go_on)
            show(one.address != null)
            isEnabled = studio.work == null
            setOnClickListener { studio.download(one.address!!) }
        }
        part<View>(R.id.delete).apply {
            isEnabled = studio.work == null
            setOnClickListener { askToDelete(one.name) { studio.delete(one) } }
        }
        return item
    }

    private fun item(one: Inspected, list: ViewGroup): View {
        val item = layoutInflater.inflate(R.layout.item_bundle, list, false)
        fun <T : View> part(id: Int): T = item.findViewById<T>(id)!!
        val isUsed = studio.opened?.place == one.place
        part<TextView>(R.id.name).text = one.bundle?.manifest?.model ?: one.place.name
        part<View>(R.id.chosen).show(isUsed)
        part<TextView>(R.id.facts).text = factsOf(one)
        part<View>(R.id.broken).show(one.error != null)
        one.error?.let { error ->
            val message = messages.of(error)
            part<TextView>(R.id.broken_title).text = message.title
            part<TextView>(R.id.broken_files).apply {
                text = message.files.joinToString("\n")
                show(message.files.isNotEmpty())
            }
            part<TextView>(R.id.broken_text).text = message.text
            part<TextView>(R.id.broken_detail).apply {
                text = message.detail
                show(message.detail != null)
            }
        }
        part<Button>(R.id.use).apply {
            show(one.bundle != null && !isUsed)
            isEnabled = studio.work == null
            setOnClickListener { studio.open(one.place, then = ::finish) }
        }
        part<View>(R.id.credits).apply {
            show(one.bundle != null)
            setOnClickListener { showCredits(one.bundle!!) }
        }
        part<View>(R.id.delete).apply {
            isEnabled = studio.work == null
            setOnClickListener { askToDelete(one.place.name) { studio.delete(one.place) } }
        }
        return item
    }

    private fun factsOf(one: Inspected): String {
        val manifest = one.bundle?.manifest
        val origin = if (one.place.origin == Place.Origin.PUSHED) R.string.origin_pushed else R.string.origin_own
        val first = listOfNotNull(
            manifest?.let { getString(R.string.made_for, it.target.title) },
            manifest?.formats?.keys?.joinToString(" + "),
        )
        val second = listOf(one.place.name, messages.megabytes(one.bytes), getString(origin))
        return listOf(first, second).filter { it.isNotEmpty() }.joinToString("\n") {
            it.joinToString(getString(R.string.separator))
        }
    }

    private fun showCredits(bundle: pocketdiffusion.engine.Bundle) {
        val manifest = bundle.manifest
        val texts = manifest.files.paths.filter { it.startsWith("licences/") }.sorted().map {
            try {
                bundle.text(it)
            } catch (error: pocketdiffusion.engine.EngineError) {
                error.message.orEmpty()
            }
        }
        val first = listOf(getString(R.string.licence, manifest.licence), manifest.attribution).filter {
            it.isNotEmpty()
        }
        AlertDialog.Builder(this)
            .setTitle(manifest.model)
            .setMessage((first + texts).joinToString("\n\n"))
            .setPositiveButton(R.string.close, null)
            .show()
    }

    private fun askToDelete(name: String, delete: () -> Unit) {
        AlertDialog.Builder(this)
            .setMessage(getString(R.string.delete_question, name))
            .setNegativeButton(R.string.cancel, null)
            .setPositiveButton(R.string.delete) { _, _ -> delete() }
            .show()
    }

    private companion object {
        const val ZIP = 1
    }
}
