import Foundation

/// What image to image makes of the user's picture (docs/BUNDLE.md, section 9).
public enum ImageToImage {
  /// The number of rows that are left out. Throws `badRequest` for a strength that is not above 0 and at most 1, or that
  /// leaves no step.
  static func start(steps: Int, strength: Double) throws -> Int {
    guard strength > 0, strength <= 1 else {  // also where it is NaN
      throw EngineError.badRequest(why: "The strength has to be above 0 and at most 1, and not \(strength).")
    }
    let kept = (Double(steps) * strength).rounded(.down)
    guard kept >= 1 else {
      throw EngineError.badRequest(
        why: "A strength of \(strength) leaves none of \(steps) steps: take more of one of them.")
    }
    return steps - Int(kept)
  }

  /// Lays rows of red, green, blue, alpha over white, as Pillow's alpha_composite does.
  public static func overWhite(rgba: [UInt8]) -> [UInt8] {
    var rgb: [UInt8] = []
    rgb.reserveCapacity(rgba.count / 4 * 3)
    for at in stride(from: 0, to: rgba.count, by: 4) {
      let alpha = Int(rgba[at + 3])
      for k in 0..<3 {
        let level = Double(Int(rgba[at + k]) * alpha + 255 * (255 - alpha)) / 255
        rgb.append(UInt8(level.rounded()))
      }
    }
    return rgb
  }

  /// Resizes as Pillow 13 does with the filter Lanczos: along one axis after the other, with whole levels between. The
  /// columns come first where the height shrinks by more than twice what the width shrinks by, else the rows.
  public static func resize(_ picture: Picture, width: Int, height: Int) -> Picture {
    let fewerRows = picture.height - height
    let columnsFirst = fewerRows > 0 && fewerRows > 2 * (picture.width - width)
    var levels = picture.rgb
    var lines = picture.height  // of `levels`
    func alongColumns(run: Int) {
      if height == picture.height { return }
      levels = LanczosFilter(from: picture.height, to: height)
        .apply(levels, lines: run, line: 3, step: run * 3, toLine: 3)
      lines = height
    }
    if columnsFirst { alongColumns(run: picture.width) }
    if width != picture.width {
      levels = LanczosFilter(from: picture.width, to: width)
        .apply(levels, lines: lines, line: picture.width * 3, step: 3, toLine: width * 3)
    }
    if !columnsFirst { alongColumns(run: width) }
    return Picture(width: width, height: height, rgb: levels)
  }
}

/// The weights by which lines of `from` pixels become lines of `to` pixels, in Pillow's integers.
private struct LanczosFilter {
  private static let bits = 22
  private static let lobes = 3.0

  private let to: Int
  private var first: [Int] = []
  private var weights: [[Int]] = []

  init(from: Int, to: Int) {
    self.to = to
    let scale = Double(from) / Double(to)
    let widened = max(scale, 1)
    for i in 0..<to {
      let center = (Double(i) + 0.5) * scale
      let begin = max(Int(center - Self.lobes * widened + 0.5), 0)
      let end = min(Int(center + Self.lobes * widened + 0.5), from)
      let raw = (begin..<end).map { Self.lanczos((Double($0) - center + 0.5) * (1 / widened)) }
      let total = raw.reduce(0, +)
      first.append(begin)
      weights.append(
        raw.map { one in
          let weight = total == 0 ? one : one / total
          return Int(weight * Double(1 << Self.bits) + (weight < 0 ? -0.5 : 0.5))
        })
    }
  }

  /// The pixels of a line are `step` bytes apart, and two lines `line` bytes before and `toLine` bytes after.
  func apply(_ levels: [UInt8], lines: Int, line: Int, step: Int, toLine: Int) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: lines * to * 3)
    for i in 0..<to {
      for l in 0..<lines {
        for k in 0..<3 {
          var sum = 1 << (Self.bits - 1)
          var at = l * line + first[i] * step + k
          for weight in weights[i] {
            sum += Int(levels[at]) * weight
            at += step
          }
          result[l * toLine + i * step + k] = UInt8(clamping: sum >> Self.bits)
        }
      }
    }
    return result
  }

  private static func lanczos(_ x: Double) -> Double { -lobes <= x && x < lobes ? sinc(x) * sinc(x / lobes) : 0 }

  private static func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(.pi * x) / (.pi * x) }
}
