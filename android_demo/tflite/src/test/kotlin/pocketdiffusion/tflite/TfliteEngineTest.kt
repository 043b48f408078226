package pocketdiffusion.tflite

import pocketdiffusion.engine.Bundle
import pocketdiffusion.engine.CannotRunHere
import pocketdiffusion.engine.EngineTooOld
import pocketdiffusion.engine.PipelineGraph
import pocketdiffusion.engine.UnitKnownBad
import pocketdiffusion.engine.UnitNotHere
import pocketdiffusion.engine.isOlder
import java.io.File
import java.nio.file.Paths
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** What can be known of the engine without its library, which no JVM has: which graphs it takes, and which not. */
class TfliteEngineTest {
    private val engine = TfliteEngine(hasGpu = true, readVersion = { VERSION })

    private fun graphs(format: String): List<PipelineGraph> {
        val folders = System.getProperty("bundles").orEmpty().split(File.pathSeparator).filter { it.isNotEmpty() }
        val bundles = folders.map { Bundle.open(Paths.get(it)) }.filter { format in it.manifest.formats }
        assertTrue(bundles.isNotEmpty(), "this test needs -Dbundles=FOLDER, among them one that holds $format")
        return bundles.flatMap { it.pipeline(listOf(format)).graphs.values }
    }

    @Test
    fun graphsThatNeedANewerEngineAreRefusedByItsVersion() {
        val all = graphs("tflite")
        val (newer, known) = all.partition { isOlder(VERSION, it.engine!!.leastVersion!!) }
        for (graph in newer) {
            val error = assertFailsWith<EngineTooOld> { engine.check(graph, "cpu") }
            assertEquals(listOf(VERSION, graph.engine!!.leastVersion), listOf(error.has, error.needs))
        }
        for (graph in known) engine.check(graph, "cpu")
        assertTrue(known.isNotEmpty())
        println("TFLITE ${known.size} graphs are for $VERSION or older, ${newer.size} are refused")
    }

    @Test
    fun unitsAreThoseOfTheDeviceAndOfTheManifest() {
        for (graph in graphs("tflite")) assertFailsWith<UnitNotHere> { engine.check(graph, "npu") }
        for (graph in graphs("tflite")) {
            assertFailsWith<UnitNotHere> { TfliteEngine(readVersion = { VERSION }).check(graph, "gpu") }
        }
        val bad = graphs("tflite").filter { it.units["gpu"]?.status?.name == "BAD" }
        for (graph in bad) {
            val newest = TfliteEngine(hasGpu = true, readVersion = { "99" })
            assertFailsWith<UnitKnownBad> { newest.check(graph, "gpu") }
        }
        println("TFLITE ${bad.size} graphs are known to be bad on the GPU")
    }

    @Test
    fun filesOfOtherEnginesAreRefused() {
        for (graph in graphs("onnx")) {
            val error = assertFailsWith<CannotRunHere> { engine.check(graph, "cpu") }
            assertTrue("onnxruntime" in error.why)
        }
    }

    private companion object {
        const val VERSION = "2.16.1" // of the AAR that this module is compiled with
    }
}
