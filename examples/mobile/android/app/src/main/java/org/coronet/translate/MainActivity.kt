package org.coronet.translate

import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.os.Bundle
import android.os.SystemClock
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView
import kotlin.concurrent.thread

/** Choose a picture, see it translated, and how long that took. */
class MainActivity : Activity() {
    private lateinit var view: ImageView
    private lateinit var text: TextView
    private val generator by lazy { Generator(this) }

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        view = ImageView(this).apply { adjustViewBounds = true }
        text = TextView(this)
        val button = Button(this).apply {
            setText("Choose a picture")
            setOnClickListener { startActivityForResult(Intent(Intent.ACTION_GET_CONTENT).setType("image/*"), 0) }
        }
        setContentView(LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            listOf(button, view, text).forEach(::addView)
        })
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val stream = data?.data?.let(contentResolver::openInputStream) ?: return
        val picture = stream.use { BitmapFactory.decodeStream(it) } ?: return
        thread {
            val square = Bitmap.createScaledBitmap(picture, SIZE, SIZE, true)
            val pixels = IntArray(SIZE * SIZE)
            square.getPixels(pixels, 0, SIZE, 0, 0, SIZE, SIZE)
            val start = SystemClock.elapsedRealtime()
            val planes = generator.run(Planes.of(pixels), SIZE)
            val took = SystemClock.elapsedRealtime() - start
            val made = Bitmap.createBitmap(Planes.toPixels(planes), SIZE, SIZE, Bitmap.Config.ARGB_8888)
            runOnUiThread {
                view.setImageBitmap(made)
                text.text = "$took ms"
            }
        }
    }

    companion object {
        /** Side of the picture that the file was exported for. */
        const val SIZE = 256
    }
}
