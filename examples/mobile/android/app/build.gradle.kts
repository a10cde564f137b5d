plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "org.coronet.translate"
    compileSdk = 35

    defaultConfig {
        applicationId = "org.coronet.translate"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "1"
        ndk { abiFilters += "arm64-v8a" }
    }

    // One runtime each; ./gradlew installLitertDebug, installExecutorchDebug, installNcnnDebug
    flavorDimensions += "runtime"
    productFlavors {
        create("litert")
        create("executorch")
        create("ncnn") {
            externalNativeBuild { cmake { arguments += "-Dncnn_DIR=${project.findProperty("ncnn_DIR") ?: ""}" } }
        }
    }
    // Native code is built for ncnn alone, whose C++ library is where -Pncnn_DIR=... says.
    if (gradle.startParameter.taskNames.any { "Ncnn" in it }) {
        externalNativeBuild { cmake { path = file("src/ncnn/cpp/CMakeLists.txt") } }
    }

    androidResources { noCompress += listOf("tflite", "pte", "bin") }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    "litertImplementation"("com.google.ai.edge.litert:litert:1.0.1")
    "executorchImplementation"("org.pytorch:executorch-android:1.0.0")
}
