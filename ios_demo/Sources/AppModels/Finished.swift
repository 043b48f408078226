import Foundation
import PocketDiffusion

/// The picture that was drawn last: kept as the PNG that is saved and shared, which says how it was made.
public struct Finished: Sendable {
  public let picture: Picture
  public let facts: [String: String]
  /// Where the PNG lies, or is to lie.
  public let file: URL
  /// Whether it lies there: nothing was written where storage was full.
  public private(set) var isKept = false
  /// The ends of the prompts for which there was no room, or empty texts.
  public private(set) var cut = ""
  public private(set) var negativeCut = ""
  public private(set) var seconds: Double?
  public private(set) var secondsPerStep: Double?
  /// Graphs that ran on the CPU and not where they were wished to, with what to tell of each.
  public private(set) var fallbacks: [String: Message] = [:]
  /// Whether one graph was open at a time, since the memory had no room for those of a step.
  public private(set) var isOneByOne = false

  /// Holds a picture that was drawn by `wish` and is to lie in `folder`, where `keep` writes it.
  init(_ drawn: Drawn, by wish: Wish, secondsPerStep: Double?, folder: URL) {
    picture = drawn.picture
    facts = drawn.facts
    file = folder.appendingPathComponent(Self.fileName(drawn.facts))
    cut = drawn.cut
    negativeCut = drawn.negativeCut
    seconds = drawn.seconds
    self.secondsPerStep = secondsPerStep
    fallbacks = drawn.fallbacks.mapValues { Message($0) }
    isOneByOne = drawn.residency == .call && !wish.leastMemory
  }

  /// Writes the PNG into its folder, in place of the picture before, which stays where that fails. Throws the system's
  /// errors.
  mutating func keep() throws {
    let (files, folder) = (FileManager.default, file.deletingLastPathComponent())
    try files.createDirectory(at: folder, withIntermediateDirectories: true)
    try Data(PNG.write(picture, facts: facts)).write(to: file, options: .atomic)
    isKept = true
    for name in try files.contentsOfDirectory(atPath: folder.path) where name != file.lastPathComponent {
      try? files.removeItem(at: folder.appendingPathComponent(name))
    }
  }

  /// The picture of an earlier run of the app; nil: there is none, or it was cut off when the phone was switched off.
  init?(in folder: URL) {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    let files = names.filter(Self.isPNG).map { folder.appendingPathComponent($0) }
    guard let file = files.max(by: { Self.date($0) < Self.date($1) }) else { return nil }
    self.file = file
    let name = file.lastPathComponent
    guard let bytes = (try? Data(contentsOf: file)).map({ Array($0) }), let picture = try? PNG.read(bytes, place: name),
      let facts = try? PNG.readFacts(bytes, place: name)
    else { return nil }
    self.picture = picture
    self.facts = facts
    isKept = true
  }

  /// What was asked for, for VoiceOver and as a title.
  public var prompt: String { facts["prompt"] ?? "" }

  private static func isPNG(_ name: String) -> Bool { name.hasSuffix(".png") }

  /// When a file was written: the one before the newest is there where the app ended before it was removed.
  private static func date(_ file: URL) -> Date {
    let facts = try? FileManager.default.attributesOfItem(atPath: file.path)
    return facts?[.modificationDate] as? Date ?? .distantPast
  }

  private static let mostBytes = 120  // of the words in a file's name; file systems take 255 in all

  /// The first words of the prompt and the seed.
  static func fileName(_ facts: [String: String]) -> String {
    var words = (facts["prompt"] ?? "").split { !$0.isLetter && !$0.isNumber }.joined(separator: "-").prefix(40)
    while words.utf8.count > mostBytes { words.removeLast() }
    return "\(words.isEmpty ? "picture" : String(words))-\(facts["seed"] ?? "").png"
  }
}
