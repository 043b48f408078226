package pocketdiffusion.engine

import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import kotlin.system.exitProcess

/** Pictures that were drawn elsewhere, in a folder as the reader's kit or draw_requests.py writes it, drawn again. */
class Redraw(private val folder: Path) {
    private val requests = JsonNode.parse(Files.readAllBytes(folder.resolve("requests.json")), "requests.json")
    private val photo = Png.read(Files.readAllBytes(folder.resolve(requests["photo"].text())), "photo")
    private val generators = HashMap<String, Generator>()

    /** The names of the pictures. */
    val pictures: List<String> = requests["draw"].items().map { it["picture"].text() }

    /** Draws one of them, and gives its PSNR against the picture that is there, in dB. */
    fun psnr(picture: String, oneBatch: Boolean): Double {
        val told = requests["draw"].items().first { it["picture"].text() == picture }
        val generator = generators.getOrPut(told["bundle"].text()) {
            Generator(Bundle.open(folder.resolve(told["bundle"].text())), OrtEngine(threads = 1), Residency.KEEP)
        }
        val original = Png.read(Files.readAllBytes(folder.resolve(picture)), picture)
        return Compare.psnr(original, generator.draw(read(told, oneBatch)).picture)
    }

    private fun read(told: JsonNode, oneBatch: Boolean): Request {
        val strength = told.optional("strength") { it.number() }
        return Request(
            prompt = told["prompt"].text(),
            negativePrompt = told.optional("negative_prompt") { it.text() },
            seed = told["seed"].text(),
            steps = told.optional("steps") { it.int() },
            guidance = told.optional("guidance") { it.number() },
            sampler = told.optional("sampler") { it.text() },
            picture = if (strength == null) null else photo,
            strength = strength,
            oneBatch = oneBatch,
        )
    }

    companion object {
        const val FLOOR_DB = 60.0
    }
}

/** Draws all of a folder again, says how near each came, and ends with 1 where one is under the floor or none is there. */
fun main(arguments: Array<String>) {
    val redraw = Redraw(Paths.get(arguments.single()))
    val near = redraw.pictures.map { picture ->
        val db = redraw.psnr(picture, oneBatch = false)
        println("$picture $db dB")
        db >= Redraw.FLOOR_DB
    }
    exitProcess(if (near.isNotEmpty() && near.all { it }) 0 else 1)
}
