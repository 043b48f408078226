package pocketdiffusion.engine

import java.io.IOException
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption

/**
 * What self-tests found of graphs on this device's compute units: of a unit of which the manifest knows nothing they
 * decide (docs/BUNDLE.md, section 5). A verdict is one of a bundle's runtime part and of a version of the operating
 * system, which brings the drivers. `store`, where they are kept between runs of the app, lies outside of the bundle;
 * without one they are kept in memory.
 */
class UnitVerdicts(private val os: ProgramVersion, private val store: Path? = null) {
    private val known = HashMap<String, Boolean>() // key to passed

    init {
        if (store != null) for (line in read(store)) learn(line)
    }

    /** Whether the graph was right on the unit; null: it was not tested. */
    @Synchronized
    fun passed(bundle: Bundle, graph: String, unit: String): Boolean? = known[keyOf(bundle, graph, unit)]

    /** Whether drawings may run the graph on the unit: it is the CPU, known to be good, or was tested here. */
    fun allow(bundle: Bundle, graph: PipelineGraph, unit: String): Boolean = !graph.isKnownBad(unit) &&
        (unit == "cpu" || graph.isKnownGood(unit) || passed(bundle, graph.name, unit) == true)

    @Synchronized
    fun remember(bundle: Bundle, report: DeviceReport) {
        for (result in report.graphs) known[keyOf(bundle, result.graph, result.unit)] = result.passed
        if (store != null) write(store)
    }

    private fun keyOf(bundle: Bundle, graph: String, unit: String) =
        listOf(bundle.manifest.runtimeId, graph, unit, os.name, os.version).joinToString("|")

    private fun learn(line: String) {
        val word = line.substringBefore(" ")
        if (word in listOf(PASSED, FAILED)) known[line.substringAfter(" ")] = word == PASSED
    }

    /** The store's lines. One that cannot be read is none: the units are tested again. */
    private fun read(store: Path): List<String> = try {
        if (Files.isRegularFile(store)) Files.readAllLines(store) else emptyList()
    } catch (_: IOException) {
        emptyList()
    }

    /** A store that cannot be written, where storage is full, costs another self-test, and no more. */
    private fun write(store: Path) {
        val next = store.resolveSibling("${store.fileName}.next")
        try {
            Files.write(next, known.map { (key, passed) -> "${if (passed) PASSED else FAILED} $key" }.sorted())
            Files.move(next, store, StandardCopyOption.REPLACE_EXISTING)
        } catch (_: IOException) {
            Files.deleteIfExists(next)
        }
    }

    private companion object {
        const val PASSED = "passed"
        const val FAILED = "failed"
    }
}
