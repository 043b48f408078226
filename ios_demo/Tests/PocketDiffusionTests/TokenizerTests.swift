import XCTest

@testable import PocketDiffusion

final class TokenizerTests: XCTestCase {
  private let ascii = """
    {"letters": [97, 122], "digits": [48, 57], "spaces": [32, 32], "words": [48, 57, 95, 95, 97, 122],
    "lower": [65, 90, 1, 32], "lower_several": [], "classes": [], "decompositions": [], "compositions": []}
    """

  private func characters() throws -> CharacterTables { try CharacterTables(bytes: Array(ascii.utf8), path: "test") }

  /// A tokenizer of single letters, of which a and b are joined, with added tokens of every kind.
  private func letters() throws -> Tokenizer {
    var vocabulary: [String: Int32] = ["ab</w>": 300]
    for (i, letter) in "abcdefghijklmnopqrstuvwxyz,".enumerated() {
      vocabulary["\(letter)"] = Int32(i)
      vocabulary["\(letter)</w>"] = Int32(100 + i)
    }
    func added(_ text: String, _ id: Int, _ more: String = "") -> String {
      var told = ["normalized": "false", "lstrip": "false", "rstrip": "false", "single_word": "false"]
      for name in more.split(separator: " ") { told[String(name)] = "true" }
      let expansion = text == "<c>" ? #", "expansion": "<c> <c>1""# : ""
      return #"{"text": "\#(text)", "id": \#(id)"# + told.map { #", "\#($0.key)": \#($0.value)"# }.joined() + expansion
        + "}"
    }
    let all = [
      added("<c>", 200), added("<c>1", 201), added("Dog", 202, "normalized single_word"),
      added("!", 203, "lstrip rstrip"),
    ]
    let index = try TokenizerIndex(
      json: """
        {"kind": "clip", "vocab": "", "merges": "", "characters": "", "max_length": 5, "bos_id": 1000, "eos_id": 1001,
        "pad_id": 1002, "unk_id": null, "added_tokens": [\(all.joined(separator: ", "))]}
        """)
    let pairs = try BytePairs(
      vocabulary: vocabulary, merges: Array("#version: 0.2\na b</w>\n".utf8), path: "merges", unknownID: nil)
    return Tokenizer(index: index, characters: try characters(), pairs: pairs)
  }

  func testAddedTokensAndExpansions() throws {
    let tokenizer = try letters()
    XCTAssertEqual(tokenizer.ids("AB ab"), [300, 300])
    XCTAssertEqual(tokenizer.ids("x <c>, <c>"), [123, 200, 201, 126, 200, 201])
    XCTAssertEqual(tokenizer.ids("doG dogs"), [202, 3, 14, 6, 118])
    XCTAssertEqual(tokenizer.ids("a ! b"), [100, 203, 101])
    XCTAssertEqual(tokenizer.ids("a?"), [100])  // not in the vocabulary, and no unk_id
  }

  func testWhatDoesNotFitIsTold() throws {
    let tokens = try letters().input("a <c>1  B z!")
    XCTAssertEqual(tokens.ids, [1000, 100, 201, 101, 1001])
    XCTAssertEqual(tokens.mask, [1, 1, 1, 1, 1])
    XCTAssertEqual(tokens.cut, "z!")
    XCTAssertEqual(try letters().input("a").ids, [1000, 100, 1001, 1002, 1002])
    XCTAssertEqual(try letters().input("a").mask, [1, 1, 1, 0, 0])
  }

  func testHangulIsComposedByRule() throws {
    let points: [UInt32] = [0x1112, 0x1161, 0x11ab, 0xac00, 0x11a8, 0x11a7, 0x11c3]
    let letters = points.enumerated().map { Letter(point: $1, at: $0) }
    let wanted = [(0xd55c, 0), (0xac01, 3), (0x11a7, 5), (0x11c3, 6)].map { Letter(point: $0, at: $1) }
    XCTAssertEqual(try characters().nfc(letters), wanted)
  }

  func testTablesThatEndInTheMidstAreRefused() {
    let broken = ascii.replacingOccurrences(of: "[65, 90, 1, 32]", with: "[65, 90, 1]")
    assertThrows(try CharacterTables(bytes: Array(broken.utf8), path: "characters.json")) { error in
      if case .contradiction("characters.json", _) = error { true } else { false }
    }
    assertThrows(try BytePairs(vocabulary: [:], merges: Array("a b c".utf8), path: "merges", unknownID: nil)) { error in
      if case .contradiction("merges", _) = error { true } else { false }
    }
  }
}
