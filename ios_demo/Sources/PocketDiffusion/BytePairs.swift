/// An id, and the place in the prompt of the first character that it is made of.
struct Token: Equatable {
  let id: Int32
  let at: Int
}

/// Byte-level byte-pair encoding of one word (docs/BUNDLE.md, section 6, steps 5 to 7).
struct BytePairs: Sendable {
  static let end = "</w>"

  /// The character of each byte.
  static let characters: [Unicode.Scalar] = {
    var extra: UInt32 = 0x100
    return (0..<256).map { byte in
      if (33...126).contains(byte) || (161...172).contains(byte) || byte >= 174 { return Unicode.Scalar(UInt8(byte)) }
      defer { extra += 1 }
      return Unicode.Scalar(extra) ?? " "
    }
  }()

  /// A line of the merges file: what it makes of two pieces, and how early it comes.
  private struct Merge {
    let rank: Int
    let made: Int
  }

  /// The id of each piece, as the vocabulary file has them.
  let vocabulary: [String: Int32]
  /// The lines of the merges file that are pairs, in order.
  let lines: [String]

  private let ids: [Int32?]  // of each known piece, by its number here
  private let merges: [UInt64: Merge]  // by the numbers of the two pieces
  private let bytes: [Int]  // the piece of each byte within a word
  private let lastBytes: [Int]  // the piece of each byte at a word's end

  /// `merges` are the bytes of the merges file. Throws `contradiction` for a line that is not a pair.
  init(vocabulary: [String: Int32], merges file: [UInt8], path: String, unknownID: Int32?) throws {
    var numbers: [String: Int] = [:]
    func number(_ piece: String) -> Int {
      if let known = numbers[piece] { return known }
      numbers[piece] = numbers.count
      return numbers.count - 1
    }
    bytes = Self.characters.map { number(String($0)) }
    lastBytes = Self.characters.map { number("\($0)\(Self.end)") }
    var lines: [String] = []
    var merges: [UInt64: Merge] = [:]
    for (rank, line) in file.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      if line.isEmpty || rank == 0 && line.starts(with: "#version".utf8) { continue }
      let pieces = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
      if pieces.count != 2 { throw EngineError.contradiction(place: path, why: "line \(rank + 1) is not a pair") }
      let (first, second) = (String(decoding: pieces[0], as: UTF8.self), String(decoding: pieces[1], as: UTF8.self))
      lines.append("\(first) \(second)")
      let key = Self.key(number(first), number(second))
      if merges[key] == nil { merges[key] = Merge(rank: rank, made: number(first + second)) }
    }
    var ids = [Int32?](repeating: unknownID, count: numbers.count)
    for (piece, number) in numbers { ids[number] = vocabulary[piece] ?? unknownID }
    self.vocabulary = vocabulary
    self.lines = lines
    self.merges = merges
    self.ids = ids
  }

  /// The ids of a word, each with the place of its first character.
  func encode(_ word: ArraySlice<Letter>) -> [Token] {
    var encoded: [(byte: UInt8, at: Int)] = []
    for letter in word {
      let scalar = Unicode.Scalar(letter.point) ?? "\u{fffd}"
      encoded += UTF8.encode(scalar).map { $0.map { ($0, letter.at) } } ?? []
    }
    var pieces = encoded.map { (number: bytes[Int($0.byte)], at: $0.at) }
    if let last = encoded.last { pieces[pieces.count - 1].number = lastBytes[Int(last.byte)] }
    return merged(pieces).compactMap { piece in ids[piece.number].map { Token(id: $0, at: piece.at) } }
  }

  private func merged(_ word: [(number: Int, at: Int)]) -> [(number: Int, at: Int)] {
    var pieces = word
    while true {
      var best: (place: Int, merge: Merge)?
      for i in 0..<max(pieces.count - 1, 0) {
        guard let merge = merges[Self.key(pieces[i].number, pieces[i + 1].number)] else { continue }
        if best.map({ merge.rank < $0.merge.rank }) ?? true { best = (i, merge) }
      }
      guard let best else { return pieces }
      pieces[best.place].number = best.merge.made
      pieces.remove(at: best.place + 1)
    }
  }

  private static func key(_ first: Int, _ second: Int) -> UInt64 { UInt64(first) << 32 | UInt64(second) }
}
