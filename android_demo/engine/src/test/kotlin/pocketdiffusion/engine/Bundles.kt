package pocketdiffusion.engine

import java.io.File
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import kotlin.test.fail

/** The folders that tests are given by system properties (see android_demo/README.md). */
object Bundles {
    /** Bundles of the built-in model: `-Dbundles=FOLDER:FOLDER`. */
    val all: List<Path> get() = given("bundles", "bundles of the built-in model, made by make demo")

    /** The first of them that holds ONNX in float32, which is exact enough to be compared with Python's pictures. */
    val emoji: Path get() = all.firstOrNull(::isExact) ?: fail("none of -Dbundles holds ONNX in float32")

    /** The first of them that is as exact, and whose UNet is several graphs: `pocketdiffusion export --split-unet`. */
    val split: Path
        get() = all.firstOrNull { isExact(it) && isSplit(it) } ?: fail("none of -Dbundles has a UNet of several graphs")

    /** The reader's kit: `-Dkit=FOLDER`. */
    val kit: Path get() = given("kit", "the reader's kit: pocketdiffusion reader-kit FOLDER").single()

    /** Pictures that Python drew: `-Drequests=FOLDER`. */
    val requests: Path get() = given("requests", "what android_demo/draw_requests.py wrote").single()

    /** The bundles of the kit. */
    fun ofKit(): List<Path> {
        val names = JsonNode.parse(Files.readAllBytes(kit.resolve("requests.json")), "requests.json")["draw"]
        return names.items().map { it["bundle"].text() }.distinct().map { kit.resolve(it) }
    }

    /** A file of tests/golden, the vectors that every engine of this project must pass. */
    fun golden(name: String): JsonNode {
        val folder = given("golden", "tests/golden of this repository").single()
        return JsonNode.parse(Files.readAllBytes(folder.resolve(name)), name)
    }

    private fun isExact(folder: Path): Boolean {
        val bundle = Bundle.open(folder)
        return "onnx" in bundle.manifest.formats &&
            bundle.pipeline(listOf("onnx")).graphs.values.all { it.storage == "float32" }
    }

    private fun isSplit(folder: Path): Boolean {
        val pipeline = Bundle.open(folder).pipeline(listOf("onnx"))
        return pipeline.graphsOf(pipeline.program.variant(Program.DENOISE, pipeline.program.hosts(1, false))!!).size > 1
    }

    private fun given(name: String, what: String): List<Path> {
        val folders = System.getProperty(name).orEmpty().split(File.pathSeparator).filter { it.isNotEmpty() }
        if (folders.isEmpty()) fail("this test needs -D$name=FOLDER, $what")
        return folders.map { Paths.get(it) }.onEach {
            if (!Files.isDirectory(it)) fail("-D$name: $it is not a folder; it has to be $what")
        }
    }
}
