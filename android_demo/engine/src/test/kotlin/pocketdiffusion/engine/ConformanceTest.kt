package pocketdiffusion.engine

import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory
import java.nio.file.Files
import java.nio.file.Path
import kotlin.streams.toList
import kotlin.test.assertTrue

/** The vectors by which an engine proves itself, of every bundle that is given. */
class ConformanceTest {
    @TestFactory
    fun everyVectorOfEveryBundle(): List<DynamicTest> {
        val kit = Files.list(Bundles.kit).use { all ->
            all.filter { Files.exists(it.resolve(FileTable.MANIFEST)) }.toList()
        }
        return (kit.sorted() + listOf(Bundles.emoji)).flatMap(::vectorsOf)
    }

    private fun vectorsOf(folder: Path): List<DynamicTest> {
        val bundle = Bundle.open(folder)
        val vectors = Vectors(bundle, Generator(bundle, OrtEngine(threads = 1)))
        assertTrue(vectors.all.size > 30, "$folder has ${vectors.all.size} vectors")
        return vectors.all.map { vector ->
            DynamicTest.dynamicTest("${folder.fileName}: ${vector.name}") {
                val verdict = vectors.judge(vector)
                assertTrue(verdict.passed, "$verdict")
            }
        }
    }
}
