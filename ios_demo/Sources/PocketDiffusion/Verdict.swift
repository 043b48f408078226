import Foundation

/// What was judged, and how it came out: in dB beside a floor, as the exporter's own gate says it.
public struct Verdict: Equatable, Sendable {
  public let subject: String
  public let psnrDb: Double
  /// Nil: there is none, and nothing passes.
  public let floorDb: Double?
  public let isFinite: Bool
  /// What is wrong where it failed; may be empty.
  public let note: String

  public init(subject: String, psnrDb: Double, floorDb: Double?, isFinite: Bool = true, note: String = "") {
    self.subject = subject
    self.psnrDb = psnrDb
    self.floorDb = floorDb
    self.isFinite = isFinite
    self.note = note
  }

  public var passed: Bool { isFinite && floorDb.map { psnrDb >= $0 } == true }
}

extension Verdict: CustomStringConvertible {
  public var description: String {
    let db = psnrDb == .infinity ? "equal" : String(format: "%.1f dB", psnrDb)
    let end = note.isEmpty ? "" : "; \(note)"
    let floor = floorDb.map { "floor \(Int($0)) dB" } ?? "no floor known"
    return "\(passed ? "ok" : "FAILED") \(subject): \(isFinite ? db : "not finite"), \(floor)\(end)"
  }
}

/// How equal two lists of numbers are.
public enum Compare {
  /// 20 log10(peak / rms of the difference) in dB: infinity where they are equal, minus infinity where a value is not
  /// finite or the lengths differ. `peak` nil: the largest absolute value of the reference.
  static func psnr(_ reference: [Float], _ other: [Float], peak: Double? = nil) -> Double {
    if reference.count != other.count { return -.infinity }
    var (square, largest) = (0.0, 0.0)
    for (wanted, found) in zip(reference, other) {
      let difference = Double(wanted) - Double(found)
      square += difference * difference
      largest = max(largest, abs(Double(wanted)))
    }
    if !square.isFinite { return -.infinity }
    if square == 0 { return .infinity }
    return 20 * log10((peak ?? largest) / (square / Double(reference.count)).squareRoot())
  }

  /// The same of two pictures, with 255 as peak.
  public static func psnr(_ reference: Picture, _ other: Picture) -> Double {
    guard reference.width == other.width, reference.height == other.height else { return -.infinity }
    return psnr(reference.rgb.map { Float($0) }, other.rgb.map { Float($0) }, peak: 255)
  }
}
