import Foundation

/// What the person chose last; it is there again at the next start. Nil stands for what the bundle says.
public struct Settings: Codable, Equatable, Sendable {
  /// `Place.id` of the bundle that is drawn with.
  public var bundle: String?
  public var address = ""
  public var prompt = ""
  /// Empty: none was given.
  public var negativePrompt = ""
  public var seed = "1"
  /// Whether the next picture has the same seed.
  public var keepsSeed = false
  public var steps: Int?
  public var guidance: Double?
  public var sampler: String?
  public var strength: Double?
  public var unit: String?
  /// Whether to hold as few graphs as can be, though more would fit.
  public var leastMemory = false

  public init() {}

  /// Whether the engine takes the seed: an integer from -2^63 to 2^64-1.
  public var isSeedGood: Bool { Int64(seed) != nil || UInt64(seed) != nil }

  public mutating func newSeed() { seed = String(UInt32.random(in: 0 ... .max)) }

  /// Forgets what another bundle may not have.
  mutating func forgetBundle() {
    steps = nil
    guidance = nil
    sampler = nil
    strength = nil
    unit = nil
  }
}

/// A value that is kept as a JSON file between runs of the app.
struct Kept<Value: Codable> {
  let file: URL

  /// Nil where there is no file, or one that an older app wrote in another form.
  func read() -> Value? {
    (try? Data(contentsOf: file)).flatMap { try? JSONDecoder().decode(Value.self, from: $0) }
  }

  /// A file that cannot be written, where storage is full, costs the person a choice, and no more.
  func write(_ value: Value) {
    guard let data = try? JSONEncoder().encode(value) else { return }
    try? data.write(to: file, options: .atomic)
  }

  func remove() { try? FileManager.default.removeItem(at: file) }
}
