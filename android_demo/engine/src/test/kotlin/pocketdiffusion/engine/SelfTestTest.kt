package pocketdiffusion.engine

import java.nio.file.Files
import java.nio.file.Paths
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class SelfTestTest {
    private val device = Device("Nobody", "JVM", null, ProgramVersion("Linux", "1"), ProgramVersion("engine test", "1"))

    @Test
    fun theReportIsThatOfTheSchema() {
        val bundle = Bundle.open(Bundles.emoji)
        val engine = OrtEngine(threads = 1)
        val parts = ArrayList<String>()
        val report = Generator(bundle, engine).use { generator ->
            SelfTest(generator, engine, device).run(listener = { subject, _, total -> parts += "$subject of $total" })
        }
        assertTrue(report.passed)
        assertEquals(bundle.manifest.golden.keys, report.graphs.map { it.graph }.toSet())
        assertEquals(parts.size, parts.toSet().size)
        val json = report.toJson()
        Files.write(Paths.get("target", "device_report.json"), json.toByteArray()) // for pocketdiffusion verify
        val schema = JsonNode.parse(Files.readAllBytes(Paths.get(System.getProperty("schema"))), "schema")
        val node = JsonNode.parse(json.toByteArray(), "report")
        assertEquals(schema["properties"].entries().keys, node.entries().keys)
        assertEquals(bundle.manifest.runtimeId, node["runtime_id"].text())
        val result = schema["\$defs"]["UnitResult"]["properties"].entries().keys
        for (graph in node["graphs"].items()) assertEquals(result, graph.entries().keys)
    }

    /** The report where graphs are changed: `change` is done to the outputs of a graph. */
    private fun reportOf(units: List<String> = listOf("cpu"), change: (String, Values) -> Values): DeviceReport {
        val engine = ChangedEngine(OrtEngine(threads = 1), units = units, after = change)
        return Generator(Bundle.open(Bundles.kit.resolve("pndm")), engine).use { SelfTest(it, engine, device).run() }
    }

    private fun Values.with(value: (Float) -> Float): Values = mapValues { (_, tensor) ->
        Tensor.of(tensor.shape, FloatArray(tensor.count) { value(tensor.floats()[it]) })
    }

    @Test
    fun aGraphThatIsWrongHereIsNamed() {
        val report = reportOf { name, values -> if (name == "unet") values.with { it * 1.5f } else values }
        assertEquals(setOf("unet"), report.graphs.filter { !it.passed }.map { it.graph }.toSet())
        assertTrue(report.vectors.all { it.passed })
        assertTrue(!report.picture!!.passed && !report.passed)
    }

    @Test
    fun whatIsNotFiniteOrRefusedIsInTheReport() {
        val report = reportOf(units = listOf("cpu", "npu")) { name, values ->
            if (name == "vae_decoder") throw NotFinite(name, values.keys.first()) else values
        }
        val json = JsonNode.parse(report.toJson().toByteArray(), "report")
        val graphs = json["graphs"].items().associateBy { "${it["graph"].text()} on ${it["unit"].text()}" }
        val decoder = graphs.getValue("vae_decoder on cpu")
        assertEquals("-Infinity", decoder["outputs"].items()[0]["psnr_db"].text())
        assertEquals(false, decoder["outputs"].items()[0]["finite"].boolean())
        assertTrue(decoder["error"].isNull)
        val unet = graphs.getValue("unet on npu") // known to be bad there
        assertTrue("npu" in unet["error"].text())
        assertEquals(0, unet["outputs"].items().size)
        assertTrue(unet["load_seconds"].isNull)
        assertEquals("-Infinity", json["pictures"].items()[0]["psnr_db"].text())
    }

    @Test
    fun aUnitThatDrawsNothingHereIsNoFault() {
        val report = reportOf(units = listOf("cpu", "npu")) { _, values -> values }
        val unused = report.graphs.filter { !it.draws }
        assertTrue(unused.any { !it.passed }) // the UNet, which is known to be bad on the NPU
        assertEquals(setOf("npu"), unused.map { it.unit }.toSet())
        assertTrue(report.isWhole && report.passed)
    }

    @Test
    fun withoutEvidenceNothingPasses() {
        val bundle = Bundle.open(Bundles.kit.resolve("pndm"))
        val whole = reportOf { _, values -> values }
        fun report(graphs: List<UnitResult>, vectors: List<Verdict>, picture: Verdict?) =
            DeviceReport(bundle, device, emptyList(), "onnx", graphs, vectors, picture, "float32")
        assertTrue(report(whole.graphs, whole.vectors, whole.picture).passed)
        val lacking = listOf(
            report(emptyList(), whole.vectors, whole.picture),
            report(whole.graphs, emptyList(), whole.picture),
            report(whole.graphs, whole.vectors, null),
        )
        for (empty in lacking) assertTrue(!empty.isWhole && !empty.passed)
    }

    @Test
    fun aStorageWithoutAFloorIsNotCalledGood() {
        val pipeline = Bundle.open(Bundles.kit.resolve("pndm")).pipeline(listOf("onnx"))
        val graph = pipeline.graphs.getValue("unet")
        assertEquals(105.0, graph.floor)
        val verdict = Verdict("unet.out_sample on cpu", Double.POSITIVE_INFINITY, null)
        assertTrue(!verdict.passed)
        assertEquals("FAILED unet.out_sample on cpu: equal, no floor known", "$verdict")
    }

    @Test
    fun aSelfTestCanBeCancelled() {
        val engine = OrtEngine(threads = 1)
        val cancellation = Cancellation()
        Generator(Bundle.open(Bundles.kit.resolve("pndm")), engine).use { generator ->
            val stop = SelfTestListener { subject, _, _ -> if (subject == "unet on cpu") cancellation.cancel() }
            assertFailsWith<Cancelled> {
                SelfTest(generator, engine, device).run(listener = stop, cancellation = cancellation)
            }
        }
    }
}
