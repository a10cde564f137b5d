package org.coronet.translate

import android.content.Context
import com.google.ai.edge.litert.Interpreter
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** G.tflite in LiteRT. */
class Generator(context: Context) {
    private val interpreter =
        Interpreter(File(context.assetPath("G.tflite")), Interpreter.Options().setNumThreads(4))

    /** Planes of one picture of size x size, in and out. */
    fun run(planes: FloatArray, size: Int): FloatArray {
        val input = buffer(planes.size)
        input.asFloatBuffer().put(planes)
        val output = buffer(3 * size * size)
        interpreter.run(input, output)
        output.rewind()
        return FloatArray(3 * size * size).also(output.asFloatBuffer()::get)
    }

    private fun buffer(floats: Int): ByteBuffer =
        ByteBuffer.allocateDirect(4 * floats).order(ByteOrder.nativeOrder())
}
