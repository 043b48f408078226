package pocketdiffusion.app

import pocketdiffusion.engine.Bundle
import pocketdiffusion.engine.Generator
import pocketdiffusion.engine.GraphEngine
import pocketdiffusion.engine.MemoryEstimate
import pocketdiffusion.engine.PipelineGraph
import pocketdiffusion.engine.Program
import pocketdiffusion.engine.Refusal
import pocketdiffusion.engine.Residency

/** A bundle that is whole, with the engine that draws with it. */
class Opened(val place: Place, val bundle: Bundle, val engine: GraphEngine) {
    private val planner = Generator(bundle, engine)
    val pipeline get() = planner.pipeline
    val manifest get() = bundle.manifest

    val isGuided get() = pipeline.program.guidance != Program.Guidance.NONE
    val takesNegative get() = pipeline.program.guidance == Program.Guidance.CLASSIFIER_FREE
    val samplers: List<String> get() = pipeline.steps.samplers.keys.toList()

    /** Whether a drawing can start from a photo. */
    val takesPhoto: Boolean = try {
        val hosts = pipeline.program.hosts(pipeline.tokenizers.size, hasPicture = true)
        pipeline.program.variant(Program.ENCODE_IMAGE, hosts) != null
    } catch (_: Refusal) {
        false
    }

    /** The units to choose from: of each the engine has it, and the manifest knows no graph to be wrong on it. */
    val units: List<String> = engine.units.filter { unit ->
        pipeline.graphs.values.none { it.isKnownBad(unit) }
    }

    /** Units of the engine that are not offered, with what the manifest says of them. */
    val badUnits: Map<String, String> = engine.units.filter { it !in units }.associateWith { unit ->
        pipeline.graphs.values.first { it.isKnownBad(unit) }.units.getValue(unit).note
    }

    fun peakBytes(hasPhoto: Boolean, residency: Residency = Residency.STAGE): Long? =
        MemoryEstimate(planner, hasPhoto).peakBytes(residency)

    /** Whether a drawing with the least memory takes less, as far as the manifest counts it. */
    fun canSaveMemory(hasPhoto: Boolean): Boolean {
        val (usual, least) = listOf(Residency.STAGE, Residency.CALL).map { peakBytes(hasPhoto, it) }
        return usual != null && least != null && least < usual
    }

    /** How graphs are to be kept in the memory that is left. Throws NotEnoughMemory. */
    fun residency(hasPhoto: Boolean, leftBytes: Long, leastMemory: Boolean): Residency =
        MemoryEstimate(planner, hasPhoto).choose(leftBytes, if (leastMemory) Residency.CALL else Residency.STAGE)

    /** A generator that keeps graphs so, on a unit or, with null, on those that the bundle was made for. */
    fun generator(residency: Residency, unit: String?): Generator = if (residency == Residency.STAGE && unit == null) {
        planner // whose tokenizers are read already
    } else {
        Generator(bundle, engine, residency) { unit ?: it.computeUnit }
    }

    private fun PipelineGraph.isKnownBad(unit: String): Boolean =
        units[unit]?.status == pocketdiffusion.engine.KnownUnit.Status.BAD
}
