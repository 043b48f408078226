package pocketdiffusion.app

import pocketdiffusion.engine.Bundle
import pocketdiffusion.engine.Generator
import pocketdiffusion.engine.GraphEngine
import pocketdiffusion.engine.MemoryEstimate
import pocketdiffusion.engine.PipelineGraph
import pocketdiffusion.engine.Program
import pocketdiffusion.engine.Refusal
import pocketdiffusion.engine.Residency
import pocketdiffusion.engine.UnitVerdicts

/** A bundle that is whole, with the engine that draws with it. */
class Opened(val place: Place, val bundle: Bundle, val engine: GraphEngine, val verdicts: UnitVerdicts) {
    private val planner = Generator(bundle, engine, wishedUnit = ::unitFor)
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

    /** The units to choose from: the engine has them, and each graph is known or was tested to be right on them. */
    val units: List<String> get() = engine.units.filter { unit ->
        pipeline.graphs.values.all { verdicts.allow(bundle, it, unit) }
    }

    /** By units of the engine, the first graph that the manifest knows to be wrong there. */
    val badUnits: Map<String, PipelineGraph> = engine.units.mapNotNull { unit ->
        pipeline.graphs.values.firstOrNull { it.isKnownBad(unit) }?.let { unit to it }
    }.toMap()

    /** Units that graphs are made for and do not run on, since no self-test has found them right there. */
    val untestedUnits: List<String> get() = pipeline.graphs.values
        .filter { it.computeUnit in engine.units && unitFor(it) != it.computeUnit && !it.isKnownBad(it.computeUnit) }
        .map { it.computeUnit }
        .distinct()

    fun peakBytes(hasPhoto: Boolean, residency: Residency): Long? =
        MemoryEstimate(planner, hasPhoto).peakBytes(residency)

    /** Whether a drawing with the least memory takes less, as far as the manifest counts it. */
    fun canSaveMemory(hasPhoto: Boolean): Boolean {
        val (usual, least) = listOf(Residency.STAGE, Residency.CALL).map { peakBytes(hasPhoto, it) }
        return usual != null && least != null && least < usual
    }

    /**
     * How graphs are to be kept in the memory that is left: those of a stage, or one at a time where they do not fit or
     * the person wished it. Throws NotEnoughMemory.
     */
    fun residency(hasPhoto: Boolean, leftBytes: Long, leastMemory: Boolean): Residency =
        MemoryEstimate(planner, hasPhoto).choose(leftBytes, if (leastMemory) Residency.CALL else Residency.STAGE)

    /** A generator that keeps graphs so, on a unit or, with null, on those that the bundle was made for. */
    fun generator(residency: Residency, unit: String?): Generator = if (residency == Residency.STAGE && unit == null) {
        planner // whose tokenizers are read already
    } else {
        Generator(bundle, engine, residency) { unit ?: unitFor(it) }
    }

    /** The unit that a graph was made for, where it is known or was tested to be right on it; else the CPU. */
    private fun unitFor(graph: PipelineGraph): String =
        if (verdicts.allow(bundle, graph, graph.computeUnit)) graph.computeUnit else "cpu"
}
