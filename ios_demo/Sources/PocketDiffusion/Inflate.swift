/// Unpacks deflate (RFC 1951) and zlib (RFC 1950), for PNG files and zips: Foundation has it on no system.
enum Inflate {
  struct Damaged: Error {}

  /// Unpacks a zlib stream. The checksum at its end is compared. Throws `Damaged`.
  static func zlib(_ bytes: [UInt8], limit: Int) throws -> [UInt8] {
    guard bytes.count >= 6, bytes[0] & 15 == 8, (Int(bytes[0]) << 8 | Int(bytes[1])) % 31 == 0, bytes[1] & 32 == 0
    else { throw Damaged() }
    var stream = BitStream(bytes: bytes, at: 2)
    let made = try raw(&stream, limit: limit)
    let at = stream.byteEnd
    guard at + 4 <= bytes.count, bytes[at..<at + 4].reduce(0, { $0 << 8 | UInt32($1) }) == Checksum.adler32(made) else {
      throw Damaged()
    }
    return made
  }

  /// Unpacks bare deflate. Throws `Damaged`, also where more than `limit` bytes would come out.
  static func raw(_ bytes: [UInt8], limit: Int) throws -> [UInt8] {
    var stream = BitStream(bytes: bytes, at: 0)
    return try raw(&stream, limit: limit)
  }

  private static func raw(_ stream: inout BitStream, limit: Int) throws -> [UInt8] {
    var made: [UInt8] = []
    made.reserveCapacity(min(limit, 1 << 26))
    var isLast = false
    while !isLast {
      isLast = try stream.bits(1) == 1
      switch try stream.bits(2) {
      case 0: made += try stream.stored()
      case 1: try unpack(&stream, Self.fixedLiterals, Self.fixedDistances, into: &made, limit: limit)
      case 2:
        let (literals, distances) = try tables(&stream)
        try unpack(&stream, literals, distances, into: &made, limit: limit)
      default: throw Damaged()
      }
      if made.count > limit { throw Damaged() }
    }
    return made
  }

  private static let fixedLiterals = HuffmanCode(
    lengths: (0..<288).map { $0 < 144 ? 8 : $0 < 256 ? 9 : $0 < 280 ? 7 : 8 })
  private static let fixedDistances = HuffmanCode(lengths: [Int](repeating: 5, count: 30))
  private static let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]

  /// The base and the number of extra bits of each length code, from 257, and each distance code.
  private static let lengths: [(base: Int, extra: Int)] =
    (0..<28).map { $0 < 8 ? (3 + $0, 0) : (3 + (4 + $0 % 4) << ($0 / 4 - 1), $0 / 4 - 1) } + [(258, 0)]
  private static let distances: [(base: Int, extra: Int)] =
    (0..<30).map { $0 < 4 ? (1 + $0, 0) : (1 + (2 + $0 % 2) << ($0 / 2 - 1), $0 / 2 - 1) }

  private static func tables(_ stream: inout BitStream) throws -> (HuffmanCode, HuffmanCode) {
    let (literals, distances, codes) = (try stream.bits(5) + 257, try stream.bits(5) + 1, try stream.bits(4) + 4)
    var lengths = [Int](repeating: 0, count: 19)
    for i in 0..<codes { lengths[order[i]] = try stream.bits(3) }
    let code = HuffmanCode(lengths: lengths)
    var all: [Int] = []
    while all.count < literals + distances {
      switch try code.next(&stream) {
      case 16:
        guard let last = all.last else { throw Damaged() }
        all += [Int](repeating: last, count: 3 + (try stream.bits(2)))
      case 17: all += [Int](repeating: 0, count: 3 + (try stream.bits(3)))
      case 18: all += [Int](repeating: 0, count: 11 + (try stream.bits(7)))
      case let length: all.append(length)
      }
    }
    if all.count != literals + distances { throw Damaged() }
    return (HuffmanCode(lengths: Array(all[..<literals])), HuffmanCode(lengths: Array(all[literals...])))
  }

  private static func unpack(
    _ stream: inout BitStream, _ literals: HuffmanCode, _ distances: HuffmanCode, into made: inout [UInt8], limit: Int
  ) throws {
    while made.count <= limit {
      let symbol = try literals.next(&stream)
      if symbol < 256 {
        made.append(UInt8(symbol))
        continue
      }
      if symbol == 256 { return }
      guard symbol - 257 < lengths.count else { throw Damaged() }
      let length = lengths[symbol - 257].base + (try stream.bits(lengths[symbol - 257].extra))
      let code = try distances.next(&stream)
      guard code < Self.distances.count else { throw Damaged() }
      let distance = Self.distances[code].base + (try stream.bits(Self.distances[code].extra))
      guard distance <= made.count else { throw Damaged() }
      for _ in 0..<length { made.append(made[made.count - distance]) }
    }
  }
}

/// The bits of a stream, from the lowest of each byte on.
private struct BitStream {
  let bytes: [UInt8]
  private var at: Int  // the next byte
  private var held: UInt32 = 0
  private var count = 0

  init(bytes: [UInt8], at: Int) {
    self.bytes = bytes
    self.at = at
  }

  /// The first byte of which no bit was taken.
  var byteEnd: Int { at - count / 8 }

  mutating func bits(_ wanted: Int) throws -> Int {
    while count < wanted {
      guard at < bytes.count else { throw Inflate.Damaged() }
      held |= UInt32(bytes[at]) << UInt32(count)
      at += 1
      count += 8
    }
    let value = held & (1 << UInt32(wanted) - 1)
    held >>= UInt32(wanted)
    count -= wanted
    return Int(value)
  }

  mutating func stored() throws -> ArraySlice<UInt8> {
    at = byteEnd
    held = 0
    count = 0
    guard at + 4 <= bytes.count else { throw Inflate.Damaged() }
    let size = Int(bytes[at]) | Int(bytes[at + 1]) << 8
    let other = Int(bytes[at + 2]) | Int(bytes[at + 3]) << 8
    guard size ^ 0xffff == other, at + 4 + size <= bytes.count else { throw Inflate.Damaged() }
    defer { at += 4 + size }
    return bytes[at + 4..<at + 4 + size]
  }
}

/// A canonical Huffman code: how many codes there are of each length, and the symbols in the order of their codes.
private struct HuffmanCode: Sendable {
  private var counts = [Int](repeating: 0, count: 16)
  private var symbols: [Int] = []

  init(lengths: [Int]) {
    for length in 1..<16 {
      let own = lengths.indices.filter { lengths[$0] == length }
      counts[length] = own.count
      symbols += own
    }
  }

  func next(_ stream: inout BitStream) throws -> Int {
    var (code, first, index) = (0, 0, 0)
    for length in 1..<16 {
      code |= try stream.bits(1)
      if code - first < counts[length] { return symbols[index + code - first] }
      index += counts[length]
      first = (first + counts[length]) << 1
      code <<= 1
    }
    throw Inflate.Damaged()
  }
}
