package pocketdiffusion.engine

/**
 * A picture that is decoded in tiles, which are blended where they overlap (docs/BUNDLE.md, section 10). `rows` and
 * `columns` are the axes of the latents, of which each is `scale` pixels. One row of tiles is in memory at a time.
 */
class Tiles(val rows: TileAxis, val columns: TileAxis, private val scale: Int) {
    /** An axis of `size` latents, in tiles of `tile` latents, of which neighbours share `overlap` or more. */
    class TileAxis(val size: Int, tile: Int, overlap: Int) {
        /** The length of a tile. */
        val length = minOf(tile, size)

        /** Where tiles begin. */
        val starts: List<Int>

        init {
            val rest = size - length
            val last = if (rest == 0) 0 else (rest + length - overlap - 1) / (length - overlap)
            starts = (0..last).map { if (last == 0) 0 else it * rest / last }
        }

        /** How much of a tile the one before it has filled already, in latents. */
        fun sharedAt(tile: Int): Int = if (tile == 0) 0 else starts[tile - 1] + length - starts[tile]
    }

    /** [1, channels, height, width] of a tile of the latents. */
    fun shape(channels: Int): IntArray = intArrayOf(1, channels, rows.length, columns.length)

    /** [1, 3, height, width] of a decoded tile. */
    val pictureShape: IntArray get() = intArrayOf(1, COLOURS, scale * rows.length, scale * columns.length)

    /**
     * The decoded picture, [1, 3, H, W], of latents [1, channels, h, w]; `decode` makes [1, 3, height, width] of a tile.
     */
    fun decode(latents: FloatArray, channels: Int, decode: (FloatArray) -> FloatArray): FloatArray {
        val (height, width) = scale * rows.length to scale * columns.size
        val picture = FloatArray(COLOURS * scale * rows.size * width)
        for ((i, row) in rows.starts.withIndex()) {
            val strip = FloatArray(COLOURS * height * width)
            for ((j, column) in columns.starts.withIndex()) {
                val tile = decode(cut(latents, channels, row, column))
                check(tile.size == Tensor.countOf(pictureShape)) { "a tile of ${tile.size} values" }
                lay(tile, strip, COLOURS * height, columns, j, inner = 1)
            }
            lay(strip, picture, COLOURS, rows, i, inner = width)
        }
        return picture
    }

    private fun cut(latents: FloatArray, channels: Int, row: Int, column: Int): FloatArray {
        val (height, width) = rows.length to columns.length
        val tile = FloatArray(channels * height * width)
        for (line in 0 until channels * height) {
            val from = (line / height * rows.size + row + line % height) * columns.size + column
            latents.copyInto(tile, line * width, from, from + width)
        }
        return tile
    }

    /**
     * Lays a piece, [outer, length of a tile, inner], on what was laid before, [outer, length of the axis, inner]. Where
     * that is filled, the weight of the piece grows from 0 to 1.
     */
    private fun lay(piece: FloatArray, laid: FloatArray, outer: Int, axis: TileAxis, number: Int, inner: Int) {
        val (length, size) = scale * axis.length to scale * axis.size
        val (begin, shared) = scale * axis.starts[number] to scale * axis.sharedAt(number)
        for (line in 0 until outer * length) {
            val x = line % length
            val (from, to) = line * inner to (line / length * size + begin + x) * inner
            if (x < shared) {
                val weight = (2 * x + 1).toFloat() / (2 * shared)
                for (k in 0 until inner) laid[to + k] += weight * (piece[from + k] - laid[to + k])
            } else {
                piece.copyInto(laid, to, from, from + inner)
            }
        }
    }

    companion object {
        private const val COLOURS = 3

        /** Of the pipeline file's `vae` and its latents [1, channels, h, w]; null: the picture is decoded as one. */
        fun read(vae: JsonNode, latents: IntArray, scale: Int): Tiles? {
            val size = vae.optional("tile_size") { it.int() }
            val overlap = vae.optional("tile_overlap") { it.int() }
            if (size == null && overlap == null) return null
            if (size == null || overlap == null) vae.fail("one of tile_size and tile_overlap is lacking")
            val (height, width) = latents[2] to latents[3]
            val isOfLatents = scale > 0 && size % scale == 0 && overlap % scale == 0
            val isSmaller = overlap in 0 until size && size < scale * maxOf(height, width)
            if (!isOfLatents || !isSmaller) {
                vae.fail("tiles of $size pixels that share $overlap are none of a picture of this size")
            }
            fun axis(latents: Int) = TileAxis(latents, size / scale, overlap / scale)
            return Tiles(axis(height), axis(width), scale)
        }
    }
}
