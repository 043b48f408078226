/// Unpacks deflate (RFC 1951) and zlib (RFC 1950), for PNG files and zips: Foundation has it on no system.
enum Inflate {
  struct Damaged: Error {}

  /// Unpacks a zlib stream. The checksum at its end is compared. Throws `Damaged`.
  static func zlib(_ bytes: [UInt8], limit: Int) throws -> [UInt8] {
    guard bytes.count >= 6, bytes[0] & 15 == 8, (Int(bytes[0]) << 8 | Int(bytes[1])) % 31 == 0, bytes[1] & 32 == 0
    else { throw Damaged() }
    var inflater = Inflater(input: bytes, at: 2)
    let made = try whole(&inflater, limit: limit)
    let at = inflater.byteEnd
    guard at + 4 <= bytes.count, bytes[at..<at + 4].reduce(0, { $0 << 8 | UInt32($1) }) == Checksum.adler32(made) else {
      throw Damaged()
    }
    return made
  }

  /// Unpacks bare deflate. Throws `Damaged`, also where more than `limit` bytes would come out.
  static func raw(_ bytes: [UInt8], limit: Int) throws -> [UInt8] {
    var inflater = Inflater(input: bytes, at: 0)
    return try whole(&inflater, limit: limit)
  }

  /// Unpacks bare deflate of any length in little memory: `source` gives the next bytes, none at the end, and `sink` gets
  /// what comes out. Throws `Damaged`, and what the two throw.
  static func raw(source: @escaping () throws -> [UInt8], sink: ([UInt8]) throws -> Void) throws {
    var inflater = Inflater(input: [], at: 0, source: source)
    try inflater.run(sink)
  }

  private static func whole(_ inflater: inout Inflater, limit: Int) throws -> [UInt8] {
    var made: [UInt8] = []
    made.reserveCapacity(min(limit, 1 << 26))
    try inflater.run { piece in
      if made.count + piece.count > limit { throw Damaged() }
      made += piece
    }
    return made
  }
}

private struct Inflater {
  /// How far back a copy can reach.
  private static let window = 1 << 15
  /// What is gathered before it goes to the sink.
  private static let piece = 1 << 18

  private let source: (() throws -> [UInt8])?
  private var input: [UInt8]
  private var at: Int  // the next byte of `input`
  private var held: UInt64 = 0  // bits that were taken from `input`, from the lowest on
  private var count = 0  // how many
  private var missing = 0  // zeros among them that stand behind the end of the stream
  private var made: [UInt8] = []
  private var told = 0  // how many bytes of `made` the sink has

  init(input: [UInt8], at: Int, source: (() throws -> [UInt8])? = nil) {
    self.input = input
    self.at = at
    self.source = source
    made.reserveCapacity(Self.piece + Self.window + 512)
  }

  /// The first byte of which no bit was taken.
  var byteEnd: Int { at - (count - missing) / 8 }

  mutating func run(_ sink: ([UInt8]) throws -> Void) throws {
    var isLast = false
    while !isLast {
      isLast = try bits(1) == 1
      switch try bits(2) {
      case 0: try copyStored(sink)
      case 1: try unpack(Self.fixedLiterals, Self.fixedDistances, sink)
      case 2:
        let (literals, distances) = try tables()
        try unpack(literals, distances, sink)
      default: throw Inflate.Damaged()
      }
    }
    try sink(Array(made[told...]))
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

  private mutating func tables() throws -> (HuffmanCode, HuffmanCode) {
    let (literals, distances, codes) = (try bits(5) + 257, try bits(5) + 1, try bits(4) + 4)
    var lengths = [Int](repeating: 0, count: 19)
    for i in 0..<codes { lengths[Self.order[i]] = try bits(3) }
    let code = HuffmanCode(lengths: lengths)
    var all: [Int] = []
    while all.count < literals + distances {
      switch try next(code) {
      case 16:
        guard let last = all.last else { throw Inflate.Damaged() }
        all += [Int](repeating: last, count: 3 + (try bits(2)))
      case 17: all += [Int](repeating: 0, count: 3 + (try bits(3)))
      case 18: all += [Int](repeating: 0, count: 11 + (try bits(7)))
      case let length: all.append(length)
      }
    }
    if all.count != literals + distances { throw Inflate.Damaged() }
    return (HuffmanCode(lengths: Array(all[..<literals])), HuffmanCode(lengths: Array(all[literals...])))
  }

  private mutating func unpack(
    _ literals: HuffmanCode, _ distances: HuffmanCode, _ sink: ([UInt8]) throws -> Void
  ) throws {
    while true {
      let symbol = try next(literals)
      if symbol < 256 {
        made.append(UInt8(symbol))
      } else if symbol == 256 {
        return
      } else {
        guard symbol - 257 < Self.lengths.count else { throw Inflate.Damaged() }
        let length = Self.lengths[symbol - 257].base + (try bits(Self.lengths[symbol - 257].extra))
        let code = try next(distances)
        guard code < Self.distances.count else { throw Inflate.Damaged() }
        let distance = Self.distances[code].base + (try bits(Self.distances[code].extra))
        guard distance <= made.count else { throw Inflate.Damaged() }
        for _ in 0..<length { made.append(made[made.count - distance]) }
      }
      if made.count >= Self.piece + Self.window { try flush(sink) }
    }
  }

  private mutating func copyStored(_ sink: ([UInt8]) throws -> Void) throws {
    _ = try bits(count % 8)
    let (size, other) = (try bits(16), try bits(16))
    guard size ^ 0xffff == other else { throw Inflate.Damaged() }
    for _ in 0..<size { made.append(UInt8(try bits(8))) }
    if made.count >= Self.piece + Self.window { try flush(sink) }
  }

  /// Gives what is gathered to the sink, and keeps what a copy can reach.
  private mutating func flush(_ sink: ([UInt8]) throws -> Void) throws {
    try sink(Array(made[told...]))
    made.removeFirst(made.count - Self.window)
    told = made.count
  }

  private mutating func next(_ code: HuffmanCode) throws -> Int {
    try fill(HuffmanCode.longest)
    guard let (symbol, length) = code.look(up: held) else { throw Inflate.Damaged() }
    try drop(length)
    return symbol
  }

  private mutating func bits(_ wanted: Int) throws -> Int {
    try fill(wanted)
    let value = Int(held & (1 << UInt64(wanted) - 1))
    try drop(wanted)
    return value
  }

  private mutating func drop(_ wanted: Int) throws {
    held >>= UInt64(wanted)
    count -= wanted
    if count < missing { throw Inflate.Damaged() }
  }

  /// Holds at least `wanted` bits: zeros where the stream has ended, which `drop` does not let be taken.
  private mutating func fill(_ wanted: Int) throws {
    while count < wanted {
      if at == input.count, let source {
        input = try source()
        at = 0
      }
      if at < input.count {
        held |= UInt64(input[at]) << UInt64(count)
        at += 1
      } else {
        missing += 8
      }
      count += 8
    }
  }
}

/// A canonical Huffman code as a table: the next 15 bits of the stream lead to a symbol and the bits that it takes.
private struct HuffmanCode: Sendable {
  static let longest = 15
  private static let mask: UInt64 = 1 << 15 - 1

  /// symbol << 4 | length; 0: no code begins so.
  private var table = [UInt16](repeating: 0, count: 1 << HuffmanCode.longest)

  init(lengths: [Int]) {
    var code = 0
    for length in 1...Self.longest {
      code <<= 1
      for symbol in lengths.indices where lengths[symbol] == length {
        guard code < 1 << length else { return }  // more codes than there is room for: the stream is damaged
        var turned = 0  // the stream has a code's first bit lowest
        for bit in 0..<length { turned |= (code >> bit & 1) << (length - 1 - bit) }
        for place in stride(from: turned, to: table.count, by: 1 << length) {
          table[place] = UInt16(symbol << 4 | length)
        }
        code += 1
      }
    }
  }

  func look(up held: UInt64) -> (symbol: Int, length: Int)? {
    let entry = Int(table[Int(held & Self.mask)])
    return entry == 0 ? nil : (entry >> 4, entry & 15)
  }
}
