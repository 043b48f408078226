package pocketdiffusion.app

import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
class MainActivityTest {
    @Test
    fun `the app opens`() {
        println(Robolectric.buildActivity(MainActivity::class.java).setup().get().getString(R.string.app_name))
    }
}
