package pocketdiffusion.engine

import java.nio.file.Files
import java.nio.file.Paths
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

class SelfTestTest {
    private val device = Device("Nobody", "JVM", null, ProgramVersion("Linux", "1"), ProgramVersion("engine test", "1"))

    @Test
    fun theBuiltInModelIsTheSameHere() {
        val bundle = Bundle.open(Bundles.emoji)
        bundle.checkAll()
        val engine = OrtEngine(threads = 1)
        val parts = ArrayList<String>()
        val report = Generator(bundle, engine).use { generator ->
            SelfTest(generator, engine, device).run(listener = { subject, _, total -> parts += "$subject of $total" })
        }
        val verdicts = report.vectors + report.graphs.flatMap { it.outputs.values } + listOfNotNull(report.picture)
        verdicts.filter { !it.passed }.let { assertTrue(it.isEmpty(), "$it") }
        assertTrue(report.passed)
        assertEquals(bundle.manifest.golden.keys, report.graphs.map { it.graph }.toSet())
        assertEquals(parts.size, parts.toSet().size)
        val json = report.toJson()
        assertEquals(bundle.manifest.runtimeId, JsonNode.parse(json.toByteArray(), "report")["runtime_id"].text())
        Files.write(Paths.get("target", "device_report.json"), json.toByteArray()) // for pocketdiffusion verify
        println("picture ${report.picture}")
        report.graphs.forEach { println("${it.graph} ${it.outputs.values} ${it.medianCallSeconds} s ${it.peakBytes}") }
    }
}
