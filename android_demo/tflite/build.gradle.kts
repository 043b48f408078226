import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    id("com.android.library")
    kotlin("android")
}

android {
    namespace = "pocketdiffusion.tflite"
    compileSdk = 35
    defaultConfig { minSdk = 26 }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }
}

kotlin {
    compilerOptions { jvmTarget = JvmTarget.JVM_1_8 }
}

dependencies {
    api(project(":engine"))
    api("org.tensorflow:tensorflow-lite:2.16.1")
    api("org.tensorflow:tensorflow-lite-gpu:2.16.1")
    api("org.tensorflow:tensorflow-lite-gpu-api:2.14.0")
}
