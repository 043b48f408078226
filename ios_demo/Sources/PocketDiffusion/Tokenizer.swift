/// A text that is looked for before all else, and becomes its own id.
struct AddedToken: Sendable, Decodable {
  let text: String
  let id: Int32
  let normalized: Bool
  let lstrip: Bool
  let rstrip: Bool
  let singleWord: Bool
  /// Empty or absent but for a textual inversion of several vectors.
  let expansion: String?
}

/// One of the pipeline file's `tokenizers`.
struct TokenizerIndex: Sendable, Decodable {
  let vocab: String
  let merges: String
  let characters: String
  let maxLength: Int
  let bosID: Int32
  let eosID: Int32
  let padID: Int32
  let unkID: Int32?
  let addedTokens: [AddedToken]

  private enum Keys: String, CodingKey {
    case kind, vocab, merges, characters, maxLength, bosId, eosId, padId, unkId, addedTokens
  }

  init(from decoder: any Decoder) throws {
    let file = try decoder.container(keyedBy: Keys.self)
    let kind = try file.decode(String.self, forKey: .kind)
    if kind != "clip" { throw EngineError.refusal(what: "the tokenizer kind \(kind)") }
    vocab = try file.decode(String.self, forKey: .vocab)
    merges = try file.decode(String.self, forKey: .merges)
    characters = try file.decode(String.self, forKey: .characters)
    maxLength = try file.decode(Int.self, forKey: .maxLength)
    bosID = try file.decode(Int32.self, forKey: .bosId)
    eosID = try file.decode(Int32.self, forKey: .eosId)
    padID = try file.decode(Int32.self, forKey: .padId)
    unkID = try file.decodeIfPresent(Int32.self, forKey: .unkId)
    addedTokens = try file.decodeIfPresent([AddedToken].self, forKey: .addedTokens) ?? []
  }
}

/// What the graphs get of a prompt; `cut` is its end for which there was no room.
struct Tokens: Equatable {
  let ids: [Int32]
  let mask: [Int32]
  let cut: String
}

/// CLIP's tokenizer, from the bundle's own files (docs/BUNDLE.md, section 6).
struct Tokenizer: Sendable {
  private struct Sought: Sendable {
    let token: AddedToken
    let points: [UInt32]
  }

  let pairs: BytePairs
  private let index: TokenizerIndex
  private let characters: CharacterTables
  private let typed: [Sought]
  private let normalized: [Sought]

  /// Reads the files that `index` names.
  init(index: TokenizerIndex, bundle: ModelBundle) throws {
    self.init(
      index: index,
      characters: try CharacterTables(bytes: bundle.read(index.characters), path: index.characters),
      pairs: try BytePairs(
        vocabulary: bundle.json([String: Int32].self, index.vocab), merges: bundle.read(index.merges),
        path: index.merges, unknownID: index.unkID))
  }

  init(index: TokenizerIndex, characters: CharacterTables, pairs: BytePairs) {
    self.index = index
    self.characters = characters
    self.pairs = pairs
    typed = index.addedTokens.filter { !$0.normalized }.map {
      Sought(token: $0, points: Self.letters(of: $0.text).map(\.point))
    }
    normalized = index.addedTokens.filter(\.normalized).map {
      Sought(token: $0, points: characters.normalize(Self.letters(of: $0.text)).map(\.point))
    }
  }

  /// Step 8: the beginning token, the text as far as there is room, the end token, the padding.
  func input(_ prompt: String) -> Tokens {
    let text = expand(prompt)
    let all = encode(text)
    let room = max(index.maxLength - 2, 0)
    let kept = [index.bosID] + all.prefix(room).map(\.id) + [index.eosID]
    let padding = max(index.maxLength - kept.count, 0)
    let cut = text.unicodeScalars.dropFirst(all.count > room ? all[room].at : text.unicodeScalars.count)
    return Tokens(
      ids: Array((kept + [Int32](repeating: index.padID, count: padding)).prefix(index.maxLength)),
      mask: Array(
        ([Int32](repeating: 1, count: kept.count) + [Int32](repeating: 0, count: padding)).prefix(index.maxLength)),
      cut: String(cut))
  }

  /// The ids of the text alone.
  func ids(_ prompt: String) -> [Int32] { encode(expand(prompt)).map(\.id) }

  /// Step 1: tokens of several vectors are spelled out.
  private func expand(_ prompt: String) -> String {
    let expanding = index.addedTokens.filter { $0.expansion?.isEmpty == false }
    if expanding.isEmpty { return prompt }
    var text = prompt
    var seen: Set<Int32> = []
    for id in encode(prompt).map(\.id) where seen.insert(id).inserted {
      for token in expanding where token.id == id {
        text = Self.replace(token.text, in: text, by: token.expansion ?? "")
      }
    }
    return text
  }

  /// Replaces each occurrence of these very letters: nothing is taken for equal that has other code points.
  private static func replace(_ old: String, in text: String, by new: String) -> String {
    let (old, scalars) = (Array(old.unicodeScalars), Array(text.unicodeScalars))
    if old.isEmpty { return text }
    var result = String.UnicodeScalarView()
    var at = 0
    while at < scalars.count {
      if scalars[at...].starts(with: old) {
        result.append(contentsOf: new.unicodeScalars)
        at += old.count
      } else {
        result.append(scalars[at])
        at += 1
      }
    }
    return String(result)
  }

  private func encode(_ prompt: String) -> [Token] {
    var tokens: [Token] = []
    search(Self.letters(of: prompt)[...], for: typed, into: &tokens) { stretch, tokens in
      search(characters.normalize(Array(stretch))[...], for: normalized, into: &tokens) { inner, tokens in
        split(Array(inner)) { word in tokens += pairs.encode(word) }
      }
    }
    return tokens
  }

  /// Step 2: added tokens become their ids, and each stretch between them goes to `between`.
  private func search(
    _ text: ArraySlice<Letter>, for all: [Sought], into tokens: inout [Token],
    between: (ArraySlice<Letter>, inout [Token]) -> Void
  ) {
    func isWord(_ at: Int) -> Bool { text.indices.contains(at) && characters.isWord(text[at].point) }
    func isSpace(_ at: Int) -> Bool { characters.isSpace(text[at].point) }
    var done = text.startIndex
    var at = text.startIndex
    while at < text.endIndex {
      let found = all.filter { Self.starts(text, with: $0.points, at: at) }.max { $0.points.count < $1.points.count }
      guard let found else {
        at += 1
        continue
      }
      var (from, to) = (at, at + found.points.count)
      at = to
      if found.token.singleWord && (isWord(from - 1) || isWord(to)) { continue }
      if found.token.lstrip { while from > done && isSpace(from - 1) { from -= 1 } }
      if found.token.rstrip { while to < text.endIndex && isSpace(to) { to += 1 } }
      if from > done { between(text[done..<from], &tokens) }
      tokens.append(Token(id: found.token.id, at: text[from].at))
      done = to
      at = to
    }
    if done < text.endIndex { between(text[done...], &tokens) }
  }

  /// Texts that are a word, or several, wherever they stand: each with the lengths of its words.
  private static let fixed: [(points: [UInt32], lengths: [Int])] =
    [["<|", "startoftext", "|>"], ["<|", "endoftext", "|>"]].map { ($0, $0.joined()) }.map { words, text in
      (text.unicodeScalars.map(\.value), words.map(\.count))
    } + ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map { ($0.unicodeScalars.map(\.value), [$0.count]) }

  /// Step 4: the words of a stretch.
  private func split(_ text: [Letter], word: (ArraySlice<Letter>) -> Void) {
    func end(of kind: (UInt32) -> Bool, from begin: Int) -> Int {
      text[begin...].firstIndex { !kind($0.point) } ?? text.count
    }
    var at = 0
    while at < text.count {
      let point = text[at].point
      let begin = at
      if let fixed = Self.fixed.first(where: { Self.starts(text[...], with: $0.points, at: at) }) {
        for length in fixed.lengths {
          word(text[at..<at + length])
          at += length
        }
      } else if characters.isSpace(point) {
        at += 1
      } else {
        if characters.isLetter(point) {
          at = end(of: characters.isLetter, from: at)
        } else if characters.isDigit(point) {
          at += 1
        } else {
          at = end(of: characters.isOther, from: at)
        }
        word(text[begin..<at])
      }
    }
  }

  /// The characters of a text.
  static func letters(of text: String) -> [Letter] {
    text.unicodeScalars.enumerated().map { Letter(point: $1.value, at: $0) }
  }

  private static func starts(_ text: ArraySlice<Letter>, with points: [UInt32], at: Int) -> Bool {
    guard !points.isEmpty, at + points.count <= text.endIndex else { return false }
    return points.indices.allSatisfy { text[at + $0].point == points[$0] }
  }
}
