/// A character, and the place in the prompt, counted in characters of Unicode, that it came from.
struct Letter: Equatable {
  let point: UInt32
  let at: Int
}

/// What must be known of Unicode, from the bundle: no table of this system can change an id (docs/BUNDLE.md, section 6).
struct CharacterTables: Sendable {
  private struct File: Decodable {
    let letters: [UInt32]
    let digits: [UInt32]
    let spaces: [UInt32]
    let words: [UInt32]
    let lower: [Int64]
    let lowerSeveral: [[UInt32]]
    let classes: [UInt32]
    let decompositions: [[UInt32]]
    let compositions: [UInt32]
  }

  /// Hangul syllables are made by arithmetic.
  private enum Hangul {
    static let syllables: UInt32 = 0xac00
    static let leads: UInt32 = 0x1100
    static let vowels: UInt32 = 0x1161
    static let trails: UInt32 = 0x11a7
    static let leadCount: UInt32 = 19
    static let vowelCount: UInt32 = 21
    static let trailCount: UInt32 = 28
    static let count = leadCount * vowelCount * trailCount
  }

  private let letters: [UInt32]
  private let digits: [UInt32]
  private let spaces: [UInt32]
  private let words: [UInt32]
  private let classes: [UInt32]
  private let lowered: [UInt32: [UInt32]]
  private let decompositions: [UInt32: [UInt32]]
  private let compositions: [UInt64: UInt32]

  /// Reads the bytes of `path`. Throws `contradiction`.
  init(bytes: [UInt8], path: String) throws {
    let file = try BundleJSON.decode(File.self, from: bytes, path: path)
    let isWhole =
      [file.letters, file.digits, file.spaces, file.words].allSatisfy { $0.count % 2 == 0 } && file.lower.count % 4 == 0
      && file.classes.count % 3 == 0 && file.compositions.count % 3 == 0
      && (file.lowerSeveral + file.decompositions).allSatisfy { $0.count > 1 }
    if !isWhole { throw EngineError.contradiction(place: path, why: "a table of it ends in the midst of an entry") }
    letters = file.letters
    digits = file.digits
    spaces = file.spaces
    words = file.words
    classes = file.classes
    var lowered: [UInt32: [UInt32]] = [:]
    for i in stride(from: 0, to: file.lower.count, by: 4) {
      let (first, last, step, difference) = (file.lower[i], file.lower[i + 1], file.lower[i + 2], file.lower[i + 3])
      if step < 1 { throw EngineError.contradiction(place: path, why: "a step of lower is \(step)") }
      for point in stride(from: first, through: last, by: Int(step)) {
        lowered[UInt32(truncatingIfNeeded: point)] = [UInt32(truncatingIfNeeded: point + difference)]
      }
    }
    for entry in file.lowerSeveral { lowered[entry[0]] = Array(entry[1...]) }
    self.lowered = lowered
    decompositions = Dictionary(file.decompositions.map { ($0[0], Array($0[1...])) }) { first, _ in first }
    let pairs = stride(from: 0, to: file.compositions.count, by: 3).map { i in
      (Self.pair(file.compositions[i], file.compositions[i + 1]), file.compositions[i + 2])
    }
    compositions = Dictionary(pairs) { first, _ in first }
  }

  func isLetter(_ point: UInt32) -> Bool { Self.find(letters, 2, point) != nil }

  func isDigit(_ point: UInt32) -> Bool { Self.find(digits, 2, point) != nil }

  func isSpace(_ point: UInt32) -> Bool { Self.find(spaces, 2, point) != nil }

  func isWord(_ point: UInt32) -> Bool { Self.find(words, 2, point) != nil }

  /// Whether it is neither white space nor letter nor digit.
  func isOther(_ point: UInt32) -> Bool { !isSpace(point) && !isLetter(point) && !isDigit(point) }

  /// Step 3: NFC, one space for each run of white space, lower case.
  func normalize(_ text: [Letter]) -> [Letter] {
    var result: [Letter] = []
    var isBehindSpace = false
    for letter in nfc(text) {
      let isSpace = isSpace(letter.point)
      if !isSpace {
        result += (lowered[letter.point] ?? [letter.point]).map { Letter(point: $0, at: letter.at) }
      } else if !isBehindSpace {
        result.append(Letter(point: 0x20, at: letter.at))
      }
      isBehindSpace = isSpace
    }
    return result
  }

  /// Unicode NFC (Standard Annex 15).
  func nfc(_ text: [Letter]) -> [Letter] { compose(order(decompose(text))) }

  private func decompose(_ text: [Letter]) -> [Letter] {
    text.flatMap { letter in
      decomposition(of: letter.point).map { Letter(point: $0, at: letter.at) }
    }
  }

  private func decomposition(of point: UInt32) -> [UInt32] {
    guard point >= Hangul.syllables, point - Hangul.syllables < Hangul.count else {
      return decompositions[point] ?? [point]
    }
    let (pair, trail) = (point - Hangul.syllables).quotientAndRemainder(dividingBy: Hangul.trailCount)
    let (lead, vowel) = pair.quotientAndRemainder(dividingBy: Hangul.vowelCount)
    return [Hangul.leads + lead, Hangul.vowels + vowel] + (trail == 0 ? [] : [Hangul.trails + trail])
  }

  /// Sorts each run of characters of a class other than 0 by class; those of one class stay in their order.
  private func order(_ text: [Letter]) -> [Letter] {
    var result: [Letter] = []
    var run: [(letter: Letter, own: UInt32)] = []
    for letter in text {
      let own = combiningClass(letter.point)
      if own != 0 {
        let place = run.lastIndex { $0.own <= own }.map { $0 + 1 } ?? 0
        run.insert((letter, own), at: place)
      } else {
        result += run.map(\.letter) + [letter]
        run = []
      }
    }
    return result + run.map(\.letter)
  }

  private func compose(_ text: [Letter]) -> [Letter] {
    var result: [Letter] = []
    var starter: Int?  // its place in `result`
    var left: UInt32?  // the class of the last character that stayed behind the starter; nil: none did
    for letter in text {
      let own = combiningClass(letter.point)
      if let place = starter, left.map({ $0 < own }) ?? true, let joined = join(result[place].point, letter.point) {
        result[place] = Letter(point: joined, at: result[place].at)
        continue
      }
      result.append(letter)
      left = own == 0 ? nil : own
      if own == 0 { starter = result.count - 1 }
    }
    return result
  }

  private func join(_ a: UInt32, _ b: UInt32) -> UInt32? {
    let (lead, vowel, trail, syllable) =
      (a &- Hangul.leads, b &- Hangul.vowels, b &- Hangul.trails, a &- Hangul.syllables)
    if lead < Hangul.leadCount, vowel < Hangul.vowelCount {
      return Hangul.syllables + (lead * Hangul.vowelCount + vowel) * Hangul.trailCount
    }
    if syllable < Hangul.count, syllable % Hangul.trailCount == 0, trail > 0, trail < Hangul.trailCount {
      return a + trail
    }
    return compositions[Self.pair(a, b)]
  }

  private func combiningClass(_ point: UInt32) -> UInt32 { Self.find(classes, 3, point).map { classes[$0 + 2] } ?? 0 }

  private static func pair(_ a: UInt32, _ b: UInt32) -> UInt64 { UInt64(a) << 32 | UInt64(b) }

  /// Where the entry [first, last, ...] of `size` numbers begins that holds the character, or nil.
  private static func find(_ entries: [UInt32], _ size: Int, _ point: UInt32) -> Int? {
    var (low, high) = (0, entries.count / size - 1)
    while low <= high {
      let middle = (low + high) / 2
      if point < entries[middle * size] {
        high = middle - 1
      } else if point > entries[middle * size + 1] {
        low = middle + 1
      } else {
        return middle * size
      }
    }
    return nil
  }
}
