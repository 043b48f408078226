package pocketdiffusion.engine

/**
 * What can go wrong, by type. The message is a sentence for a person: what is wrong, and what to do. An app that speaks
 * another language takes the type and its fields.
 */
sealed class EngineError(message: String, cause: Throwable? = null) : Exception(message, cause)

/** The folder is not a bundle at all. */
class NotABundle(val folder: String, why: String) :
    EngineError("$folder is not a bundle: $why. Choose the folder that pocketdiffusion export wrote.")

/** A bundle of a version that this engine does not read. */
class WrongVersion(val found: Int, val known: Int) :
    EngineError(
        "This is a bundle of version $found, and the app reads version $known: " +
            if (found > known) "install a newer app." else "export the model again.",
    )

/** Something in the bundle that this engine does not know, and must not guess: `what` names it. */
class Refusal(val what: String) :
    EngineError("The bundle asks for something that this app does not know: $what. A newer app may.")

/** Files are missing, changed or too many: `faults` names each one. */
class NotWhole(val faults: List<Fault>) :
    EngineError(
        "The bundle is not whole: ${faults.take(SHOWN).joinToString("; ")}" +
            (if (faults.size > SHOWN) "; and ${faults.size - SHOWN} more" else "") + ". Copy it to the phone again.",
    ) {
    private companion object {
        const val SHOWN = 5
    }
}

/** The system did not let a file be read. */
class Unreadable(val path: String, cause: Throwable) :
    EngineError("$path cannot be read: ${cause.message}. Copy the bundle to the phone again.", cause)

/** A download broke off; `doneBytes` are kept, and the next one goes on from there. */
class DownloadBroken(val path: String, val doneBytes: Long, val said: String, cause: Throwable? = null) :
    EngineError(
        "The download broke off at $path, after ${doneBytes shr 20} MB: $said. Start it again: it goes on from there.",
        cause,
    )

/** There is no room for a bundle. */
class StorageFull(val leftBytes: Long) :
    EngineError("The phone's storage is full, ${leftBytes shr 20} MB are left: make room, and import the bundle again.")

/** A file whose bytes are those of the manifest, but which says what cannot be. */
class Contradiction(val where: String, why: String) : EngineError("$where: $why. Export the model again.")

/** The bundle failed its proof: its pictures are not those of the model. */
class ProofFailed(val subject: String?) :
    EngineError(
        "This bundle failed its proof${if (subject == null) "" else ", $subject above all"}: " +
            "its pictures may be wrong. Export the model again.",
    )

/** Something was asked for that only the whole bundle holds. */
class ProofNotInstalled(val path: String) :
    EngineError("Proof part not installed: $path is in the whole bundle alone, as export wrote it.")

/** What the user asked for cannot be drawn: a seed that is not a number, a strength that leaves no step. */
class BadRequest(why: String) : EngineError(why)

/** The engine could not open or run a graph. `said` are its own words. */
class EngineFailure(val graph: String, val said: String, cause: Throwable? = null) :
    EngineError("The engine cannot run $graph: $said", cause)

/** The graph needs a newer engine than the app has. */
class EngineTooOld(val graph: String, val engine: String, val needs: String, val has: String) :
    EngineError("$graph needs $engine $needs or newer, and the app has $has: install a newer app.")

/** This device or this app cannot run the file at all: Core ML here, another chip's context there. */
class CannotRunHere(val graph: String, val why: String) : EngineError("$graph cannot be run here: $why.")

/** The app has no such compute unit on this device. */
class UnitNotHere(val graph: String, val unit: String, val engine: String) :
    EngineError("$graph cannot run on the unit $unit: $engine has none in this app or on this device.")

/** The manifest says that the graph's results are wrong on this unit. */
class UnitKnownBad(val graph: String, val unit: String, val note: String) :
    EngineError(
        "$graph is known to be wrong on the unit $unit${if (note.isEmpty()) "" else ": $note"}. Choose another unit.",
    )

/** A graph gave NaN or an infinity. */
class NotFinite(val graph: String, val output: String) :
    EngineError("$graph gave numbers that are not finite in $output: this unit cannot run it. Choose another unit.")

/** The user cancelled. */
class Cancelled : EngineError("Cancelled.")

/** The system gave no more memory in the midst of a drawing. */
class OutOfMemory(cause: Throwable) :
    EngineError("The phone ran out of memory: close other apps, and keep one graph open at a time.", cause)

/** The phone has less memory left than the drawing takes. `fits` says what would fit, or null. */
class NotEnoughMemory(val needsBytes: Long, val leftBytes: Long, val fits: String?) :
    EngineError(
        "Drawing takes about ${needsBytes / MB} MB of memory, and the phone has ${leftBytes / MB} MB left: " +
            (fits ?: "close other apps, or export the model with a smaller recipe or picture") + ".",
    ) {
    private companion object {
        const val MB = 1L shl 20
    }
}
