package org.coronet.translate

import android.content.Context
import java.io.File

/** The path of a file of the assets, copied to where programs can open it by its path. */
fun Context.assetPath(name: String): String {
    val file = File(filesDir, name)
    assets.open(name).use { input -> file.outputStream().use(input::copyTo) }
    return file.path
}
