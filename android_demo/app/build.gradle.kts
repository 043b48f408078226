import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    id("com.android.application")
    kotlin("android")
}

android {
    namespace = "pocketdiffusion.app"
    compileSdk = 35
    defaultConfig {
        minSdk = 26
        targetSdk = 35
        ndk { abiFilters += "arm64-v8a" }
    }
    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles("../packing/rules.pro")
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }
    androidResources { noCompress += "zip" } // bundles are packed already
}

kotlin {
    compilerOptions { jvmTarget = JvmTarget.JVM_1_8 }
}

dependencies {
    implementation(project(":engine"))
    implementation(project(":tflite"))
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.29.0")
    compileOnly("org.codehaus.mojo:animal-sniffer-annotations:1.24")
}
