package pocketdiffusion.engine

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class PictureTest {
    private fun levels(picture: Picture) = picture.rgb.map { it.toInt() and 0xff }

    @Test
    fun noLevelWrapsAround() {
        val decoded = floatArrayOf(Float.NaN, -2f, 0f, 2f, 1f, Float.NEGATIVE_INFINITY)
        assertEquals(listOf(0, 128, 255, 0, 255, 0), levels(Picture.of(decoded, 2, 1)))
    }

    @Test
    fun aPreviewHasAPixelForEachLatent() {
        val preview = Pipeline.Preview(
            listOf(doubleArrayOf(1.0, 0.0, 2.0), doubleArrayOf(0.0, 1.0, 0.0)),
            doubleArrayOf(0.0, 0.5, 0.0),
        )
        val picture = Picture.preview(floatArrayOf(1f, 0.2f, 0f, -9f), 2, 1, preview)
        assertEquals(listOf(255, 128, 255, 51, 0, 102), levels(picture))
    }

    @Test
    fun pngFilesComeBackWithTheirFacts() {
        val noise = TorchRandom("1").normal(7 * 5 * 3)
        val picture = Picture(7, 5, ByteArray(noise.size) { (noise[it] * 40).toInt().toByte() })
        val facts = mapOf("prompt" to "a 🍎 and \"ÄPFEL\"", "seed" to "7")
        val bytes = Png.write(picture, facts)
        val again = Png.read(bytes, "picture")
        assertEquals(listOf(7, 5), listOf(again.width, again.height))
        assertContentEquals(picture.rgb, again.rgb)
        assertEquals(facts, Png.readFacts(bytes, "picture"))
        assertFailsWith<Contradiction> { Png.read(bytes.copyOf(bytes.size / 2), "picture") }
        assertFailsWith<Contradiction> { Png.read(byteArrayOf(1, 2, 3), "picture") }
    }

    @Test
    fun strengthSaysHowManyRowsAreLeftOut() {
        assertEquals(4, ImageToImage.startOf(20, 0.8))
        assertEquals(0, ImageToImage.startOf(4, 1.0))
        for (strength in listOf(0.2, 0.0, -1.0, 1.001, 7.0, Double.NaN)) {
            assertFailsWith<BadRequest> {
                ImageToImage.startOf(4, strength)
            }
        }
    }

    @Test
    fun aPictureOfOneColourStaysSo() {
        val picture = ImageToImage.resize(Picture(7, 5, ByteArray(7 * 5 * 3) { 99 }), 3, 9)
        assertEquals(listOf(3, 9), listOf(picture.width, picture.height))
        assertTrue(picture.rgb.all { it == 99.toByte() })
    }

    @Test
    fun picturesAreResizedAsPillowDoes() {
        fun read(name: String) = Png.read(javaClass.getResourceAsStream("/$name.png")!!.readBytes(), name)
        val photo = read("photo") // with transparency; the others are what Pillow made of it
        for ((width, height) in listOf(24 to 16, 64 to 96, 69 to 15)) {
            val expected = read("photo-${width}x$height")
            assertContentEquals(expected.rgb, ImageToImage.resize(photo, width, height).rgb)
        }
    }

    @Test
    fun whatIsTransparentIsWhite() {
        val rgba = byteArrayOf(10, 20, 30, 0, 10, 20, 30, -1, 0, 0, 0, 127)
        assertEquals(
            listOf(255, 255, 255, 10, 20, 30, 128, 128, 128),
            ImageToImage.overWhite(rgba).map {
                it.toInt() and
                    0xff
            },
        )
    }
}
