package org.coronet.translate

import android.content.Context

/** G.param and G.bin in ncnn, by the C++ of src/ncnn/cpp. */
class Generator(context: Context) {
    private val net = load(context.assetPath("G.param"), context.assetPath("G.bin"))

    init {
        check(net != 0L) { "G.param and G.bin cannot be read" }
    }

    /** Planes of one picture of size x size, in and out. */
    fun run(planes: FloatArray, size: Int): FloatArray = checkNotNull(run(net, planes, size)) { "it does not run" }

    private external fun load(param: String, bin: String): Long

    private external fun run(net: Long, planes: FloatArray, size: Int): FloatArray?

    companion object {
        init {
            System.loadLibrary("translate")
        }
    }
}
