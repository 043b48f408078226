import Foundation
import PocketDiffusion

/// The picture that was drawn last: kept as the PNG that is saved and shared, which says how it was made.
public struct Finished: Sendable {
  public let picture: Picture
  public let facts: [String: String]
  /// Where the PNG lies.
  public let file: URL
  /// The ends of the prompts for which there was no room, or empty texts.
  public private(set) var cut = ""
  public private(set) var negativeCut = ""
  public private(set) var seconds: Double?
  public private(set) var secondsPerStep: Double?
  /// Graphs that ran on the CPU and not where they were wished to, with what to tell of each.
  public private(set) var fallbacks: [String: Message] = [:]

  /// Keeps a picture in `folder`, in place of the one before. Throws the system's errors.
  init(_ drawn: Drawn, secondsPerStep: Double?, folder: URL) throws {
    picture = drawn.picture
    facts = drawn.facts
    file = folder.appendingPathComponent(Self.fileName(drawn.facts))
    cut = drawn.cut
    negativeCut = drawn.negativeCut
    seconds = drawn.seconds
    self.secondsPerStep = secondsPerStep
    fallbacks = drawn.fallbacks.mapValues { Message($0) }
    try? FileManager.default.removeItem(at: folder)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try Data(PNG.write(drawn.picture, facts: drawn.facts)).write(to: file, options: .atomic)
  }

  /// The picture of an earlier run of the app; nil: there is none, or it was cut off when the phone was switched off.
  init?(in folder: URL) {
    guard let name = try? FileManager.default.contentsOfDirectory(atPath: folder.path).first(where: Self.isPNG) else {
      return nil
    }
    file = folder.appendingPathComponent(name)
    guard let bytes = (try? Data(contentsOf: file)).map({ Array($0) }), let picture = try? PNG.read(bytes, place: name),
      let facts = try? PNG.readFacts(bytes, place: name)
    else { return nil }
    self.picture = picture
    self.facts = facts
  }

  /// What was asked for, for VoiceOver and as a title.
  public var prompt: String { facts["prompt"] ?? "" }

  private static func isPNG(_ name: String) -> Bool { name.hasSuffix(".png") }

  /// The first words of the prompt and the seed.
  static func fileName(_ facts: [String: String]) -> String {
    let words = (facts["prompt"] ?? "").split { !$0.isLetter && !$0.isNumber }.joined(separator: "-").prefix(40)
    return "\(words.isEmpty ? "picture" : String(words))-\(facts["seed"] ?? "").png"
  }
}
