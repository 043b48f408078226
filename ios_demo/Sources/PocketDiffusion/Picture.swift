/// A picture of 8 bits a channel: rows of red, green, blue.
public struct Picture: Equatable, Sendable {
  public let width: Int
  public let height: Int
  public let rgb: [UInt8]

  public init(width: Int, height: Int, rgb: [UInt8]) {
    precondition(rgb.count == width * height * 3, "\(rgb.count) bytes are not a picture of \(width) x \(height)")
    self.width = width
    self.height = height
    self.rgb = rgb
  }

  /// Reads what a decoder gave, float32 [1, 3, H, W] (docs/BUNDLE.md, section 10): clamped, rounded half to even, NaN
  /// becomes 0.
  init(decoded: [Float], width: Int, height: Int) {
    let area = width * height
    precondition(decoded.count == 3 * area)
    let rgb = [UInt8](unsafeUninitializedCapacity: 3 * area) { into, written in
      for k in 0..<3 {
        for i in 0..<area { into[3 * i + k] = Self.level(decoded[k * area + i] * 0.5 + 0.5) }
      }
      written = 3 * area
    }
    self.init(width: width, height: height, rgb: rgb)
  }

  /// Makes a rough picture of latents [1, c, h, w], one pixel for each (section 3).
  init(preview latents: [Float], width: Int, height: Int, preview: Pipeline.Preview) {
    let area = width * height
    var rgb = [UInt8](repeating: 0, count: 3 * area)
    for pixel in 0..<area {
      for k in 0..<3 {
        var value = preview.bias[k]
        for (c, row) in preview.matrix.enumerated() { value += Double(latents[c * area + pixel]) * row[k] }
        rgb[3 * pixel + k] = Self.level(Float(value))
      }
    }
    self.init(width: width, height: height, rgb: rgb)
  }

  /// The host value `picture`: float32 [1, 3, H, W] in -1..1 (section 9).
  var tensor: Tensor {
    let area = width * height
    let values = (0..<rgb.count).map { i in Float(rgb[i % area * 3 + i / area]) / 127.5 - 1 }
    return Tensor(values, shape: [1, 3, height, width])
  }

  private static func level(_ unit: Float) -> UInt8 {
    unit.isNaN ? 0 : UInt8((min(max(unit, 0), 1) * 255).rounded(.toNearestOrEven))
  }
}
