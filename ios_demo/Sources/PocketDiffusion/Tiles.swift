/// A picture that is decoded in tiles, which are blended where they overlap (docs/BUNDLE.md, section 10). `rows` and
/// `columns` are the axes of the latents, of which each is `scale` pixels. One row of tiles is in memory at a time.
struct Tiles: Sendable {
  /// An axis of latents in tiles.
  struct Axis: Sendable {
    /// Of the latents.
    let size: Int
    /// Of a tile, in latents.
    let length: Int
    /// Where tiles begin.
    let starts: [Int]

    /// Of `size` latents, in tiles of `tile` latents, of which neighbours share `overlap` or more.
    init(size: Int, tile: Int, overlap: Int) {
      let length = min(tile, size)
      let rest = size - length
      let last = rest == 0 ? 0 : (rest + length - overlap - 1) / (length - overlap)
      self.size = size
      self.length = length
      starts = (0...last).map { last == 0 ? 0 : $0 * rest / last }
    }

    /// How much of a tile the one before it has filled already, in latents.
    func shared(at tile: Int) -> Int { tile == 0 ? 0 : starts[tile - 1] + length - starts[tile] }
  }

  private static let colours = 3

  let rows: Axis
  let columns: Axis
  let scale: Int

  /// [1, channels, height, width] of a tile of the latents.
  func shape(channels: Int) -> [Int] { [1, channels, rows.length, columns.length] }

  /// [1, 3, height, width] of a decoded tile.
  var pictureShape: [Int] { [1, Self.colours, scale * rows.length, scale * columns.length] }

  /// The number of values of a decoded tile.
  var count: Int { pictureShape.reduce(1, *) }

  /// Makes the decoded picture, [1, 3, H, W], of latents [1, channels, h, w]; `decode` makes [1, 3, height, width] of a
  /// tile.
  func decode(_ latents: [Float], channels: Int, _ decode: ([Float]) throws -> [Float]) rethrows -> [Float] {
    let (height, width) = (scale * rows.length, scale * columns.size)
    var picture = [Float](repeating: 0, count: Self.colours * scale * rows.size * width)
    for (i, row) in rows.starts.enumerated() {
      var strip = [Float](repeating: 0, count: Self.colours * height * width)
      for (j, column) in columns.starts.enumerated() {
        let tile = try decode(cut(latents, channels: channels, row: row, column: column))
        precondition(tile.count == count)
        lay(tile, on: &strip, outer: Self.colours * height, columns, j, inner: 1)
      }
      lay(strip, on: &picture, outer: Self.colours, rows, i, inner: width)
    }
    return picture
  }

  private func cut(_ latents: [Float], channels: Int, row: Int, column: Int) -> [Float] {
    let height = rows.length
    return (0..<channels * height).flatMap { line in
      let from = (line / height * rows.size + row + line % height) * columns.size + column
      return latents[from..<from + columns.length]
    }
  }

  /// Lays a piece, [outer, length of a tile, inner], on what was laid before, [outer, length of the axis, inner]. Where
  /// that is filled, the weight of the piece grows from 0 to 1.
  private func lay(_ piece: [Float], on laid: inout [Float], outer: Int, _ axis: Axis, _ number: Int, inner: Int) {
    let (length, size) = (scale * axis.length, scale * axis.size)
    let (begin, shared) = (scale * axis.starts[number], scale * axis.shared(at: number))
    for line in 0..<outer * length {
      let x = line % length
      let (from, to) = (line * inner, (line / length * size + begin + x) * inner)
      let weight = x < shared ? Float(2 * x + 1) / Float(2 * shared) : 1
      for k in 0..<inner {
        laid[to + k] = x < shared ? laid[to + k] + weight * (piece[from + k] - laid[to + k]) : piece[from + k]
      }
    }
  }
}

extension Tiles {
  /// Reads the tiles of a pipeline file's `vae`; nil: the picture is decoded as one. `latents` are [1, channels, h, w].
  /// Throws `contradiction`.
  init?(size: Int?, overlap: Int?, latents: [Int], scale: Int, place: String) throws {
    if size == nil && overlap == nil { return nil }
    guard let size, let overlap else {
      throw EngineError.contradiction(place: place, why: "one of tile_size and tile_overlap is lacking")
    }
    let isGood =
      scale > 0 && size > 0 && 0..<size ~= overlap && size % scale == 0 && overlap % scale == 0
      && size < scale * max(latents[2], latents[3])
    guard isGood else {
      let why = "tiles of \(size) pixels that share \(overlap) are none of a picture of this size"
      throw EngineError.contradiction(place: place, why: why)
    }
    rows = Axis(size: latents[2], tile: size / scale, overlap: overlap / scale)
    columns = Axis(size: latents[3], tile: size / scale, overlap: overlap / scale)
    self.scale = scale
  }
}
