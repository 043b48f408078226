import Foundation

/// Numbers as people read them.
enum Numbers {
  private static let tenGigabytes: Int64 = 10 << 30

  static func bytes(_ bytes: Int64) -> Phrase {
    bytes < tenGigabytes
      ? Phrase(.megabytes, .text((bytes >> 20).formatted()))
      : Phrase(.gigabytes, .text(digits(Double(bytes) / Double(1 << 30), 1)))
  }

  /// With as many digits as say something.
  static func seconds(_ seconds: Double) -> Phrase {
    switch seconds {
    case ..<0.1: Phrase(.milliseconds, .text(digits(seconds * 1000, 0)))
    case ..<10: Phrase(.seconds, .text(digits(seconds, 1)))
    case ..<100: Phrase(.seconds, .text(digits(seconds, 0)))
    default: Phrase(.minutes, .text(digits(seconds / 60, 0)))
    }
  }

  /// Infinity is two pictures that are equal; minus infinity one that is not finite, or not there.
  static func decibels(_ db: Double) -> Phrase {
    if db == .infinity { return Phrase(.equal) }
    return db.isFinite ? Phrase(.decibels, .text(digits(db, 1))) : Phrase(.notFinite)
  }

  static func digits(_ value: Double, _ digits: Int) -> String {
    value.formatted(.number.precision(.fractionLength(digits)))
  }
}
