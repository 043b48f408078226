package pocketdiffusion.app

import android.app.Activity

class MainActivity : Activity()
