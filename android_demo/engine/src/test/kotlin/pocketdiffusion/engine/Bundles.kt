package pocketdiffusion.engine

import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import kotlin.test.fail

/** The folders of bundles that tests are given by system properties (see android_demo/README.md). */
object Bundles {
    /** A bundle of the built-in model: `-Dbundle=FOLDER`. */
    val emoji: Path get() = given("bundle", "a bundle of the built-in model: make demo")

    /** The reader's kit: `-Dkit=FOLDER`. */
    val kit: Path get() = given("kit", "the reader's kit: python -m pocketdiffusion.reader_kit FOLDER")

    /** A file of tests/golden, the vectors that every engine of this project must pass. */
    fun golden(name: String): JsonNode =
        JsonNode.parse(Files.readAllBytes(given("golden", "tests/golden").resolve(name)), name)

    private fun given(name: String, what: String): Path {
        val folder = System.getProperty(name).orEmpty()
        if (folder.isEmpty()) fail("this test needs -D$name=FOLDER, $what")
        return Paths.get(folder).also {
            if (!Files.isDirectory(it)) fail("-D$name=$folder is no folder: it has to be $what")
        }
    }
}
