import Foundation
import PocketDiffusion
import XCTest

@testable import AppModels

/// Every text of the app is in the String Catalogs, in each language, and is used.
final class TextsTests: XCTestCase {
  private static let languages = ["en", "zh-Hans"]
  private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../../").standardizedFileURL

  func testEveryKeyIsTranslated() throws {
    let catalog = try Catalog("App/Localizable.xcstrings", in: Self.root)
    XCTAssertEqual(Set(catalog.texts.keys), Set(TextKey.allCases.map(\.rawValue)))
    XCTAssertGreaterThan(catalog.texts.count, 100)
    let others = try Catalog("App/InfoPlist.xcstrings", in: Self.root)
    for (key, texts) in catalog.texts.merging(others.texts, uniquingKeysWith: { $1 }) {
      XCTAssertEqual(texts.keys.sorted(), Self.languages, key)
      let places = Self.languages.map { Self.places(texts[$0] ?? "") }
      XCTAssertEqual(places[0], places[1], "\(key): the same values in both languages")
      XCTAssertTrue(texts.values.allSatisfy { !$0.isEmpty }, key)
    }
  }

  func testChineseIsChinese() throws {
    let same: Set = [
      "addressHint", "graphOn", "partOf", "separator", "verbatim", "decibels", "megabytes", "gigabytes",
    ]
    for (key, texts) in try Catalog("App/Localizable.xcstrings", in: Self.root).texts where !same.contains(key) {
      let isChinese = (texts["zh-Hans"] ?? "").unicodeScalars.contains { (0x4e00...0x9fff).contains($0.value) }
      XCTAssertTrue(isChinese, key)
    }
  }

  /// The compiler knows that each key which the code uses is there: TextKey is an enum.
  func testNoKeyIsUnused() throws {
    var code = ""
    for folder in ["App", "Sources/AppModels"] {
      let names = try FileManager.default.contentsOfDirectory(atPath: Self.root.appendingPathComponent(folder).path)
      for name in names where name.hasSuffix(".swift") && name != "TextKey.swift" {
        code += try String(contentsOf: Self.root.appendingPathComponent("\(folder)/\(name)"), encoding: .utf8)
      }
    }
    let words = Set(
      code.split { !$0.isLetter && !$0.isNumber && $0 != "." }.flatMap { word in
        word.split(separator: ".", omittingEmptySubsequences: false).dropFirst().map(String.init)
      })
    for key in TextKey.allCases { XCTAssertTrue(words.contains(key.rawValue), "\(key) is used nowhere") }
  }

  /// A text in a view that is not from the catalog would be shown in English alone.
  func testNoViewHasATextOfItsOwn() throws {
    let folder = Self.root.appendingPathComponent("App")
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".swift") }
    XCTAssertGreaterThan(names.count, 10)
    let literal =
      #"(Text|Label|Button|TextField|Toggle|Section|Picker|Link|navigationTitle|accessibility\w+)\((verbatim: )?""#
    for name in names {
      let code = try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8)
      let found = code.range(of: literal, options: .regularExpression)
      XCTAssertNil(found, "\(name): \(found.map { code[$0] } ?? "")")
    }
  }

  func testValuesAreFilledIn() {
    XCTAssertEqual(Phrase.fill("%2$@ of %1$@, %3$@", ["a%2$@", "b"]), "b of a%2$@, %3$@")
    let english = try? Catalog("App/Localizable.xcstrings", in: Self.root).localizer("en")
    let step = Phrase.list([Phrase(.stepOf, .text("3"), .text("20")), Phrase(.perStep, .phrase(Numbers.seconds(1.23)))])
    XCTAssertEqual(english.map { step.text($0) }, "Step 3 of 20 · 1.2 s a step")
  }

  func testEveryErrorHasItsWords() throws {
    let english = try Catalog("App/Localizable.xcstrings", in: Self.root).localizer("en")
    let errors: [any Error] = [
      EngineError.notABundle(folder: "a", why: "b"), EngineError.wrongVersion(found: 3, known: 2),
      EngineError.wrongVersion(found: 1, known: 2), EngineError.refusal(what: "c"),
      EngineError.notWhole([
        Fault(path: "x", kind: .missing), Fault(path: "x", kind: .extra), Fault(path: "x", kind: .link),
        Fault(path: "x", kind: .size), Fault(path: "x", kind: .content),
      ]), EngineError.unreadable(path: "p", said: "s"), EngineError.downloadBroken(doneBytes: 1 << 30, said: "s"),
      EngineError.storageFull(needsBytes: 20 << 30, leftBytes: 1 << 20),
      EngineError.contradiction(place: "p", why: "w"),
      EngineError.proofFailed(subject: "unet"), EngineError.proofNotInstalled(path: "p"),
      EngineError.badRequest(why: "w"), EngineError.engineFailure(graph: "unet", said: "s"),
      EngineError.engineTooOld(graph: "unet", engine: "coreml", needs: "18", has: "17"),
      EngineError.cannotRunHere(graph: "unet", why: "w"),
      EngineError.unitNotHere(graph: "unet", unit: "ane", engine: "coreml"),
      EngineError.unitKnownBad(graph: "unet", unit: "gpu", note: ""), EngineError.notFinite(graph: "unet", output: "o"),
      EngineError.cancelled, EngineError.notEnoughMemory(needsBytes: 2 << 30, leftBytes: 1 << 30),
      AppError.photoUnreadable, AppError.notKept(said: "s"), AppError.notSaved(said: "s"),
      AppError.badAddress("a"), AppError.badArguments(why: "w"),
      CocoaError(.fileNoSuchFile),
    ]
    for error in errors {
      let message = Message(error)
      for phrase in [message.title, message.text] + message.files {
        let text = phrase.text(english)
        XCTAssertFalse(text.contains("$@"), text)
        XCTAssertTrue(
          text.first?.isUppercase == true || text.hasPrefix("unet") || text.hasPrefix("x ") || text.hasPrefix("p ")
            || text.hasPrefix("coreml") || text.first?.isNumber == true, text)
      }
    }
  }

  private static func places(_ text: String) -> [String] {
    var (places, rest): ([String], Substring) = ([], text[...])
    while let place = rest.range(of: #"%[0-9]+\$@"#, options: .regularExpression) {
      places.append(String(rest[place]))
      rest = rest[place.upperBound...]
    }
    XCTAssertEqual(text.filter { $0 == "%" }.count, places.count, text)
    return places.sorted()
  }
}

/// A String Catalog of Xcode, as a JSON file.
struct Catalog {
  /// By key and language.
  let texts: [String: [String: String]]

  init(_ path: String, in root: URL) throws {
    struct File: Decodable {
      struct Entry: Decodable {
        struct Localization: Decodable {
          struct Unit: Decodable {
            let state: String
            let value: String
          }

          let stringUnit: Unit
        }

        let localizations: [String: Localization]
      }

      let sourceLanguage: String
      let strings: [String: Entry]
    }
    let file = try JSONDecoder().decode(File.self, from: Data(contentsOf: root.appendingPathComponent(path)))
    XCTAssertEqual(file.sourceLanguage, "en")
    texts = file.strings.mapValues { entry in
      entry.localizations.mapValues { localization in
        XCTAssertEqual(localization.stringUnit.state, "translated")
        return localization.stringUnit.value
      }
    }
  }

  func localizer(_ language: String) -> Localizer {
    Localizer { [texts] in texts[$0]?[language] ?? $0 }
  }
}
