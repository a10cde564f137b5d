package org.coronet.translate

import kotlin.math.roundToInt

/** Pictures as the generators take and give them: planes of red, green and blue, from -1 to 1. */
object Planes {
    /** From 0xAARRGGBB, row by row. */
    fun of(pixels: IntArray): FloatArray {
        val planes = FloatArray(3 * pixels.size)
        for (i in pixels.indices) {
            for (colour in 0..2) {
                val level = (pixels[i] shr (16 - 8 * colour)) and 0xff
                planes[colour * pixels.size + i] = level / 127.5f - 1
            }
        }
        return planes
    }

    /** To 0xAARRGGBB, opaque. */
    fun toPixels(planes: FloatArray): IntArray {
        val size = planes.size / 3
        return IntArray(size) { i ->
            (0..2).fold(0xff) { pixel, colour -> (pixel shl 8) or level(planes[colour * size + i]) }
        }
    }

    private fun level(value: Float): Int = ((value + 1) * 127.5f).roundToInt().coerceIn(0, 255)
}
