package pocketdiffusion.app

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import pocketdiffusion.app.OnPhone.words

/** How far something is: how often it is told, and in which words. */
@RunWith(RobolectricTestRunner::class)
class ProgressTest {
    @Test
    fun `news of one subject are told each 100 ms, and of another at once`() {
        var millis = 0L
        val pace = Pace(100) { millis * 1_000_000 }
        val told = (0L..1000L).filter {
            millis = it
            pace.allows("unet")
        }
        assertEquals((0L..1000L step 100).toList(), told)
        assertTrue(pace.allows("vae_decoder"))
    }

    @Test
    fun `a self-test says in the person's language what it does`() {
        val work = Work(Work.Kind.TEST, "emoji").apply { total = 40 }
        fun words(stage: String) = Progress(OnPhone.app.resources).text(work.apply { this.stage = stage })
        work.done = 3
        assertEquals("3 of 40 · unet · GPU", words("unet on gpu"))
        assertEquals("3 of 40 · What surrounds it", words("tokenizer: an empty prompt"))
        assertEquals("3 of 40 · The picture", words("picture"))
        RuntimeEnvironment.setQualifiers("+zh-rCN")
        assertEquals("3 / 40 · unet · GPU", words("unet on gpu"))
        assertEquals("3 / 40 · 其他环节", words("tokenizer: an empty prompt"))
        assertEquals("3 / 40 · 图片", words("picture"))
    }

    @Test
    fun `a bundle for another phone promises nothing that was not measured`() {
        OnPhone.push()
        val words = OnPhone.open().words(R.id.phone_target)
        assertTrue(words, words.contains("this phone may be another one") && !words.contains("the same;"))
    }
}
