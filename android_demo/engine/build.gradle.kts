import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    kotlin("jvm")
}

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        // Without it, calls such as ByteBuffer.flip() get a signature that Android 8 lacks.
        freeCompilerArgs.add("-Xjdk-release=1.8")
    }
}

sourceSets {
    test { kotlin.setSrcDirs(emptyList<String>()) } // Maven runs the tests: they need bundles, see ../README.md
}

dependencies {
    implementation("org.jetbrains.kotlinx:kotlinx-serialization-json-jvm:1.12.0")
    compileOnly("com.microsoft.onnxruntime:onnxruntime:1.29.0") // the app brings the AAR, which has the same classes
}
