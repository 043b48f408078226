package pocketdiffusion.engine

import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class TorchRandomTest {
    @Test
    fun theWordsArePublished() {
        val random = TorchRandom("5489")
        assertEquals(3499211612, random.word().toLong() and 0xffffffff)
        repeat(9998) { random.word() }
        assertEquals(4123659995, random.word().toLong() and 0xffffffff)
    }

    @Test
    fun theGoldenDrawsAreTorchs() {
        val golden = Bundles.golden("noise.json")
        val tolerance = golden["tolerance"].number()
        assertTrue(golden["cases"].items().size >= 30)
        for (case in golden["cases"].items()) {
            val random = TorchRandom(case["seed"].text())
            for (draw in case["draws"].items()) {
                val values = random.normal(Tensor.countOf(draw["shape"].ints()))
                val expected = draw["values"].items().map { it.number() }
                for ((i, at) in draw["at"].ints().withIndex()) {
                    assertTrue(
                        abs(values[at] - expected[i]) <= tolerance,
                        "${draw.where}: ${values[at]}, ${expected[i]}",
                    )
                }
            }
        }
    }

    @Test
    fun seedsHave64Bits() {
        assertContentEquals(TorchRandom("-1").normal(3), TorchRandom("18446744073709551615").normal(3))
        for (seed in listOf("18446744073709551616", "-9223372036854775809", "1.5", "", "seven", " 1")) {
            assertFailsWith<BadRequest>(seed) { TorchRandom(seed) }
        }
    }
}
