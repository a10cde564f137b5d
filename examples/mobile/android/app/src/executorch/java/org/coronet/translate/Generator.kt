package org.coronet.translate

import android.content.Context
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** G.pte in ExecuTorch, with XNNPACK. */
class Generator(context: Context) {
    private val module = Module.load(context.assetPath("G.pte"))

    /** Planes of one picture of size x size, in and out. */
    fun run(planes: FloatArray, size: Int): FloatArray {
        val input = Tensor.fromBlob(planes, longArrayOf(1, 3, size.toLong(), size.toLong()))
        return module.forward(EValue.from(input))[0].toTensor().dataAsFloatArray
    }
}
