package pocketdiffusion.app

import android.content.res.Resources
import pocketdiffusion.engine.BadRequest
import pocketdiffusion.engine.Cancelled
import pocketdiffusion.engine.CannotRunHere
import pocketdiffusion.engine.Contradiction
import pocketdiffusion.engine.DownloadBroken
import pocketdiffusion.engine.EngineError
import pocketdiffusion.engine.EngineFailure
import pocketdiffusion.engine.EngineTooOld
import pocketdiffusion.engine.Fault
import pocketdiffusion.engine.NotABundle
import pocketdiffusion.engine.NotEnoughMemory
import pocketdiffusion.engine.NotFinite
import pocketdiffusion.engine.NotWhole
import pocketdiffusion.engine.OutOfMemory
import pocketdiffusion.engine.ProofFailed
import pocketdiffusion.engine.ProofNotInstalled
import pocketdiffusion.engine.Refusal
import pocketdiffusion.engine.StorageFull
import pocketdiffusion.engine.UnitKnownBad
import pocketdiffusion.engine.UnitNotHere
import pocketdiffusion.engine.Unreadable
import pocketdiffusion.engine.WrongVersion

/** An error as a person sees it. */
class Message(
    /** What is wrong, in a few words. */
    val title: String,
    /** What it means, and what to do. */
    val text: String,
    /** Each file that is missing or wrong. */
    val files: List<String> = emptyList(),
    /** What the engine said, in its own words; null where they would say nothing more. */
    val detail: String? = null,
)

/** Errors in the person's language. */
class Messages(private val resources: Resources) {
    fun of(error: Throwable): Message = when (error) {
        is EngineError -> ofEngine(error)
        is PhotoUnreadable -> message(R.string.error_photo, R.string.error_photo_text)
        is NotSaved -> message(R.string.error_not_saved, R.string.error_not_saved_text, detail = error.cause?.message)
        is NotWritten -> message(
            R.string.error_not_written,
            R.string.error_not_written_text,
            error.name,
            detail = error.cause?.message,
        )
        else -> message(R.string.error_unexpected, R.string.error_unexpected_text, detail = "$error")
    }

    private fun ofEngine(error: EngineError): Message = when (error) {
        is NotABundle -> message(R.string.error_not_a_bundle, R.string.error_not_a_bundle_text, detail = error.message)
        is WrongVersion ->
            if (error.found > error.known) {
                message(R.string.error_version, R.string.error_version_newer_text, error.found, error.known)
            } else {
                message(R.string.error_version, R.string.error_version_older_text, error.found, error.known)
            }
        is Refusal -> message(R.string.error_refusal, R.string.error_refusal_text, error.what)
        is NotWhole -> {
            val title = resources.getQuantityString(R.plurals.error_not_whole, error.faults.size, error.faults.size)
            Message(title, text(R.string.error_not_whole_text), error.faults.map(::lineOf))
        }
        is Unreadable -> message(
            R.string.error_unreadable,
            R.string.error_unreadable_text,
            error.path,
            detail = error.cause?.message,
        )
        is DownloadBroken -> message(
            R.string.error_download,
            R.string.error_download_text,
            error.path,
            megabytes(error.doneBytes),
            detail = error.said,
        )
        is StorageFull -> message(R.string.error_storage, R.string.error_storage_text, megabytes(error.leftBytes))
        is Contradiction ->
            message(
                R.string.error_contradiction,
                R.string.error_contradiction_text,
                error.where,
                detail = error.message,
            )
        is ProofFailed -> message(R.string.error_proof, R.string.error_proof_text, detail = error.subject)
        is ProofNotInstalled -> message(R.string.error_no_proof, R.string.error_no_proof_text, error.path)
        is BadRequest -> message(R.string.error_request, R.string.error_request_text, detail = error.message)
        is EngineFailure -> message(R.string.error_engine, R.string.error_engine_text, error.graph, detail = error.said)
        is EngineTooOld -> message(
            R.string.error_engine_old,
            R.string.error_engine_old_text,
            error.graph,
            error.engine,
            error.needs,
            error.has,
        )
        is CannotRunHere -> message(R.string.error_not_here, R.string.error_not_here_text, detail = error.message)
        is UnitNotHere -> message(R.string.error_unit, R.string.error_unit_text, unit(error.unit), error.engine)
        is UnitKnownBad -> message(
            R.string.error_unit_bad,
            R.string.error_unit_bad_text,
            error.graph,
            unit(error.unit),
            detail = error.note.ifEmpty { null },
        )
        is NotFinite -> message(R.string.error_not_finite, R.string.error_not_finite_text, error.graph, error.output)
        is Cancelled -> message(R.string.cancelled, R.string.cancelled_text)
        is OutOfMemory -> message(R.string.error_memory_out, R.string.error_memory_out_text)
        is NotEnoughMemory -> message(
            R.string.error_memory,
            R.string.error_memory_text,
            megabytes(error.needsBytes),
            megabytes(error.leftBytes),
        )
    }

    /** cpu, gpu and npu as people write them. */
    fun unit(unit: String): String = when (unit) {
        "cpu" -> text(R.string.unit_cpu)
        "gpu" -> text(R.string.unit_gpu)
        "npu" -> text(R.string.unit_npu)
        else -> unit
    }

    fun megabytes(bytes: Long): String = if (bytes <
        TEN_GIGABYTES
    ) {
        text(R.string.megabytes, bytes shr 20)
    } else {
        text(R.string.gigabytes, bytes / GIGABYTE)
    }

    private fun lineOf(fault: Fault): String = text(
        when (fault.kind) {
            Fault.Kind.MISSING -> R.string.fault_missing
            Fault.Kind.EXTRA -> R.string.fault_extra
            Fault.Kind.LINK -> R.string.fault_link
            Fault.Kind.SIZE -> R.string.fault_size
            Fault.Kind.CONTENT -> R.string.fault_content
        },
        fault.path,
    )

    private fun message(title: Int, text: Int, vararg values: Any, detail: String? = null) =
        Message(text(title), text(text, *values), detail = detail)

    private fun text(id: Int, vararg values: Any): String = resources.getString(id, *values)

    private companion object {
        const val GIGABYTE = 1024.0 * 1024 * 1024
        const val TEN_GIGABYTES = 10L shl 30
    }
}
