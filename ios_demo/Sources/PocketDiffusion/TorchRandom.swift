import Foundation

/// torch's CPU generator: the same seed gives the same noise (docs/BUNDLE.md, section 8). The engine is mt19937
/// (Matsumoto and Nishimura 1998); 16 values or more and fewer are made in two ways.
struct TorchRandom {
  private static let size = 624
  private static let block = 16

  private var state: [UInt32]
  private var next = size
  private var kept: Double?  // the second value of a pair

  /// Seeds with an integer from -2^63 to 2^64-1. Throws `badRequest` for another text.
  init(seed: String) throws {
    state = [try Self.lowestBits(seed)]
    state.reserveCapacity(Self.size)
    for i in 1..<Self.size {
      let last = state[i - 1]
      state.append(1_812_433_253 &* (last ^ (last >> 30)) &+ UInt32(i))
    }
  }

  /// Normal values, the next of the generator.
  mutating func normal(_ count: Int) -> [Float] {
    if count < Self.block { return (0..<count).map { _ in Float(single()) } }
    var values = (0..<count).map { _ in uniform24() }
    for at in stride(from: 0, through: count - Self.block, by: Self.block) { Self.makeBlock(&values, at) }
    if count % Self.block != 0 {  // the last 16 values come from words of their own
      for i in (count - Self.block)..<count { values[i] = uniform24() }
      Self.makeBlock(&values, count - Self.block)
    }
    return values
  }

  mutating func word() -> UInt32 {
    if next == Self.size { turn() }
    var y = state[next]
    next += 1
    y ^= y >> 11
    y ^= y << 7 & 0x9d2c_5680
    y ^= y << 15 & 0xefc6_0000
    return y ^ (y >> 18)
  }

  private mutating func turn() {
    for i in 0..<Self.size {
      let y = (state[i] & 0x8000_0000) | (state[(i + 1) % Self.size] & 0x7fff_ffff)
      let mixed = state[(i + 397) % Self.size] ^ (y >> 1)
      state[i] = y & 1 == 0 ? mixed : mixed ^ 0x9908_b0df
    }
    next = 0
  }

  /// Makes sixteen uniform values from `at` on normal ones, in place.
  private static func makeBlock(_ values: inout [Float], _ at: Int) {
    let turn = Float(2 * Double.pi)
    for i in at..<(at + block / 2) {
      let r = (-2 * log1p(-Double(values[i]))).squareRoot()
      let t = Double(values[i + block / 2] * turn)
      values[i] = Float(r * cos(t))
      values[i + block / 2] = Float(r * sin(t))
    }
  }

  private mutating func single() -> Double {
    if let value = kept {
      kept = nil
      return value
    }
    let t = 2 * Double.pi * uniform53()
    let r = (-2 * log1p(-uniform53())).squareRoot()
    kept = r * sin(t)
    return r * cos(t)
  }

  private mutating func uniform24() -> Float { Float(word() & 0xff_ffff) / 16_777_216 }

  private mutating func uniform53() -> Double {
    let high = UInt64(word()) << 32
    return Double((high | UInt64(word())) & (1 << 53 - 1)) / 9_007_199_254_740_992
  }

  private static func lowestBits(_ seed: String) throws -> UInt32 {
    let isNumber = seed.first != "+"
    if isNumber, let number = Int64(seed) { return UInt32(truncatingIfNeeded: number) }
    if isNumber, let number = UInt64(seed) { return UInt32(truncatingIfNeeded: number) }
    throw EngineError.badRequest(why: "The seed has to be an integer from -2^63 to 2^64-1, and not \(seed).")
  }
}
