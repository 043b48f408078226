package pocketdiffusion.engine

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.add
import kotlinx.serialization.json.addJsonObject
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonArray
import kotlinx.serialization.json.putJsonObject

/** The phone that a report is of, and the programs on it. */
class Device(val maker: String, val model: String, val soc: String?, val os: ProgramVersion, val app: ProgramVersion)

class ProgramVersion(val name: String, val version: String)

/** One graph on one compute unit. */
class UnitResult(
    val graph: String,
    val unit: String,
    val arithmetic: String,
    val loadSeconds: Double?,
    val firstCallSeconds: Double?,
    val medianCallSeconds: Double?,
    val peakBytes: Long?,
    /** By the output's name. */
    val outputs: Map<String, Verdict>,
    /** What the engine said where the unit refused the graph or a call failed. */
    val error: String?,
    /** Whether drawings run the graph on this unit. */
    val draws: Boolean,
) {
    val passed get() = error == null && outputs.isNotEmpty() && outputs.values.all { it.passed }
}

/**
 * What a self-test found. `toJson` is the device report of docs/BUNDLE.md
 * (runtime/devices/device_report.schema.json), which `pocketdiffusion verify DIR --device-report FILE` shows beside
 * the host's verdicts.
 */
class DeviceReport(
    private val bundle: Bundle,
    private val device: Device,
    private val engines: List<ProgramVersion>,
    private val format: String,
    val graphs: List<UnitResult>,
    val vectors: List<Verdict>,
    /** The picture beside the original's, and the least precise arithmetic of the graphs that drew it. */
    val picture: Verdict?,
    private val pictureArithmetic: String,
) {
    /** Whether drawings here are those of the original. What fails on a unit that draws nothing here is no fault. */
    val passed get() = isWhole && drawing.all { it.passed } && vectors.all { it.passed } && picture!!.passed

    /** Whether there was something to judge of each kind: a bundle without golden cases proves nothing. */
    val isWhole get() = drawing.isNotEmpty() && vectors.isNotEmpty() && picture != null

    /** Each graph on the unit that draws with it. */
    val drawing get() = graphs.filter { it.draws }

    fun toJson(): String {
        val report = buildJsonObject {
            put("version", 1)
            put("bundle_id", bundle.manifest.bundleId)
            put("runtime_id", bundle.manifest.runtimeId)
            putJsonObject("device") {
                put("maker", device.maker)
                put("model", device.model)
                put("soc", device.soc)
            }
            putJsonObject("os") { putProgram(device.os) }
            putJsonObject("app") { putProgram(device.app) }
            putJsonArray("engines") { for (engine in engines) addJsonObject { putProgram(engine) } }
            putJsonArray("graphs") { for (graph in graphs) addJsonObject { putGraph(graph) } }
            putJsonObject("conformance") {
                putJsonArray("passed") { vectors.filter { it.passed }.forEach { add(it.subject) } }
                putJsonArray("failed") { vectors.filter { !it.passed }.forEach { add(it.subject) } }
            }
            putJsonArray("pictures") {
                if (picture != null) {
                    addJsonObject {
                        put("format", format)
                        put("arithmetic", pictureArithmetic)
                        put("psnr_db", decibels(picture))
                    }
                }
            }
        }
        return PRETTY.encodeToString(kotlinx.serialization.json.JsonElement.serializer(), report) + "\n"
    }

    private fun JsonObjectBuilder.putProgram(program: ProgramVersion) {
        put("name", program.name)
        put("version", program.version)
    }

    private fun JsonObjectBuilder.putGraph(result: UnitResult) {
        put("format", format)
        put("graph", result.graph)
        put("unit", result.unit)
        put("arithmetic", result.arithmetic)
        put("load_seconds", result.loadSeconds)
        put("first_call_seconds", result.firstCallSeconds)
        put("median_call_seconds", result.medianCallSeconds)
        put("peak_bytes", result.peakBytes)
        putJsonArray("outputs") {
            for ((name, verdict) in result.outputs) {
                addJsonObject {
                    put("output", name)
                    put("psnr_db", decibels(verdict))
                    put("finite", verdict.finite)
                }
            }
        }
        put("error", result.error)
    }

    private companion object {
        val PRETTY = Json { prettyPrint = true }

        fun decibels(verdict: Verdict): JsonPrimitive = when (val db = verdict.psnrDb) {
            Double.POSITIVE_INFINITY -> JsonPrimitive("Infinity")
            Double.NEGATIVE_INFINITY -> JsonPrimitive("-Infinity")
            else -> JsonPrimitive(db)
        }
    }
}
