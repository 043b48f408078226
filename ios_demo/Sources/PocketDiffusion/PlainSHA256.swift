import Foundation

/// Sha256 (FIPS 180-4) in plain Swift, for systems without CryptoKit.
struct PlainSHA256 {
  private static let blockSize = 64

  private static let primes: [Double] = {
    var primes: [Int] = []
    var next = 2
    while primes.count < 64 {
      if primes.allSatisfy({ next % $0 != 0 }) { primes.append(next) }
      next += 1
    }
    return primes.map(Double.init)
  }()

  /// The first 32 bits of the fractions of cube roots of primes.
  private static let constants = primes.map { fraction(cbrt($0)) }
  private static let start = primes.prefix(8).map { fraction($0.squareRoot()) }

  private static func fraction(_ root: Double) -> UInt32 {
    UInt32((root - root.rounded(.down)) * 4_294_967_296)
  }

  private var state = start
  private var rest: [UInt8] = []  // bytes that are no whole block yet
  private var count: UInt64 = 0
  private var schedule = [UInt32](repeating: 0, count: 64)

  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    count += UInt64(bytes.count)
    var at = 0
    if !rest.isEmpty {
      at = min(Self.blockSize - rest.count, bytes.count)
      rest += bytes[..<at]
      if rest.count < Self.blockSize { return }
      let block = rest
      block.withUnsafeBytes { mix($0[...]) }
      rest = []
    }
    while bytes.count - at >= Self.blockSize {
      mix(bytes[at..<at + Self.blockSize])
      at += Self.blockSize
    }
    rest = Array(bytes[at...])
  }

  /// The 32 bytes of the digest.
  mutating func finish() -> [UInt8] {
    let bits = count * 8
    let zeros = (2 * Self.blockSize - 9 - rest.count) % Self.blockSize
    var end: [UInt8] = [0x80] + [UInt8](repeating: 0, count: zeros)
    for shift in stride(from: 56, through: 0, by: -8) { end.append(UInt8(truncatingIfNeeded: bits >> UInt64(shift))) }
    end.withUnsafeBytes { update($0) }
    return state.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * UInt32($0))) } }
  }

  private mutating func mix(_ block: Slice<UnsafeRawBufferPointer>) {
    func turned(_ value: UInt32, _ bits: UInt32) -> UInt32 { value >> bits | value << (32 - bits) }
    let block = UnsafeRawBufferPointer(rebasing: block)
    let state = self.state
    var hash = (state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7])
    schedule.withUnsafeMutableBufferPointer { words in
      Self.constants.withUnsafeBufferPointer { constants in
        for i in 0..<16 { words[i] = UInt32(bigEndian: block.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self)) }
        for i in 16..<64 {
          let (a, b) = (words[i - 15], words[i - 2])
          let first = turned(a, 7) ^ turned(a, 18) ^ a >> 3
          let second = turned(b, 17) ^ turned(b, 19) ^ b >> 10
          words[i] = words[i - 16] &+ first &+ words[i - 7] &+ second
        }
        for i in 0..<64 {
          let (a, b, c, d, e, f, g, h) = hash
          let choice = e & f ^ ~e & g
          let majority = a & b ^ a & c ^ b & c
          let one = h &+ (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) &+ choice &+ constants[i] &+ words[i]
          let two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) &+ majority
          hash = (one &+ two, a, b, c, d &+ one, e, f, g)
        }
      }
    }
    let (a, b, c, d, e, f, g, h) = hash
    self.state = zip(state, [a, b, c, d, e, f, g, h]).map { $0 &+ $1 }
  }
}
