package pocketdiffusion.engine

import org.junit.jupiter.api.DynamicContainer
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** What every bundle that is given has to prove here: all files, all vectors, all golden cases, its picture. */
class ConformanceTest {
    private val device = Device("Nobody", "JVM", null, ProgramVersion("Linux", "1"), ProgramVersion("tests", "1"))

    @TestFactory
    fun everyBundleProvesItself(): List<DynamicContainer> = (Bundles.all + Bundles.ofKit()).map { folder ->
        val bundle = Bundle.open(folder)
        val tests = if ("onnx" in bundle.manifest.formats) testsOf(bundle) else listOf(refusal(bundle))
        DynamicContainer.dynamicContainer("${folder.fileName}", tests)
    }

    private fun testsOf(bundle: Bundle): List<DynamicTest> {
        val engine = OrtEngine(threads = 1)
        val generator = Generator(bundle, engine)
        val report = lazy { SelfTest(generator, engine, device).run() }
        val files = DynamicTest.dynamicTest("files") { bundle.checkAll() }
        val vectors = Vectors(bundle, generator).all.map { vector ->
            test("vector ${vector.name}") { report.value.vectors.single { it.subject == vector.name } }
        }
        val graphs = bundle.manifest.golden.filterKeys { it in generator.pipeline.graphs }.flatMap { (name, case) ->
            case.outputs.keys.map { output ->
                test("$name.$output") {
                    val result = report.value.graphs.single { it.graph == name }
                    result.outputs[output] ?: error("$name: ${result.error}")
                }
            }
        }
        assertTrue(vectors.size > 30 && graphs.size >= 4)
        return listOf(files) + vectors + graphs + test("picture") { report.value.picture!! }
    }

    private fun test(name: String, verdict: () -> Verdict) = DynamicTest.dynamicTest(name) {
        val said = verdict()
        println("VERDICT $said")
        assertTrue(said.passed, "$said")
    }

    /** A bundle of another format is read, and refused by that name. */
    private fun refusal(bundle: Bundle) = DynamicTest.dynamicTest("is refused by its format's name") {
        bundle.checkAll()
        val format = bundle.manifest.formats.keys.first()
        assertTrue(bundle.pipeline(listOf(format)).graphs.isNotEmpty())
        val error = assertFailsWith<CannotRunHere> { Generator(bundle, OrtEngine()) }
        assertTrue(format in error.why, error.why)
        assertEquals("the bundle", error.graph)
    }
}
