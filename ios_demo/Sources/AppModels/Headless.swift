import Foundation
import PocketDiffusion

/// Does what launch arguments say, without a hand: draws or tests, and writes JSON.
///
///     xcrun devicectl device process launch --console --device NAME com.example.PocketDiffusion \
///       --draw --prompt "red apple" --seed 7 --steps 20 --out apple
@MainActor public struct Headless {
  private let studio: Studio
  private let folder: URL

  /// - Parameter folder: where files are written, which a computer can read: the app's documents.
  public init(studio: Studio, folder: URL) {
    self.studio = studio
    self.folder = folder
  }

  /// Whether the arguments ask for it.
  public nonisolated static func isWanted(_ arguments: [String]) -> Bool {
    !Set(arguments).isDisjoint(with: [LaunchArguments.draw, LaunchArguments.selfTest])
  }

  /// Returns the code that the app is to end with: 0, or 1 where something failed. `say` gets one line of JSON.
  public func run(_ arguments: [String], say: (String) -> Void = { print($0) }) async -> Int32 {
    var result = Result()
    var out: String?
    do {
      let told = try LaunchArguments(arguments)
      out = told.out
      try await open(told.bundle)
      result.bundle = studio.opened?.place.name
      result.bundleId = studio.opened?.bundle.manifest.bundleID
      switch told.task {
      case .draw(let wish):
        studio.draw(wish)
        await studio.idle()
        try take(&result, out: told.out)
      case .selfTest:
        studio.test()
        await studio.idle()
        try takeTest(&result, out: told.out)
      }
      if let problem = studio.problem { result.error = problem.english }
    } catch {
      result.error = error.localizedDescription
    }
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "Infinity", negativeInfinity: "-Infinity", nan: "NaN")
    let json = (try? encoder.encode(result)) ?? Data()
    if let out { try? json.write(to: folder.appendingPathComponent("\(out).json"), options: .atomic) }
    say(String(decoding: json, as: UTF8.self))
    return result.passed ? 0 : 1
  }

  private struct Result: Encodable {
    var bundle: String?
    var bundleId: String?
    /// What was written into the app's documents.
    var picture: String?
    var report: String?
    var facts: [String: String]?
    var seconds: Double?
    var secondsPerStep: Double?
    var samePicturePsnrDb: Double?
    var controlsDb: [String: Double]?
    var fallbacks: [String]?
    var oneGraphAtATime: Bool?
    var isSameModel: Bool?
    var error: String?
    var passed: Bool { error == nil && isSameModel != false }
  }

  private func open(_ name: String?) async throws {
    await studio.start()
    if let name, studio.opened?.place.name != name {
      guard let place = studio.bundles.first(where: { $0.place.name == name })?.place else {
        throw AppError.badArguments(why: "there is no bundle \(name) on this phone")
      }
      studio.open(place)
      await studio.idle()
    }
    if studio.opened == nil && studio.problem == nil {
      throw AppError.badArguments(why: "there is no bundle on this phone")
    }
  }

  private func take(_ result: inout Result, out: String) throws {
    guard studio.problem == nil, let finished = studio.finished else { return }
    let name = "\(out).png"
    try Data(contentsOf: finished.file).write(to: folder.appendingPathComponent(name), options: .atomic)
    result.picture = name
    result.facts = finished.facts
    result.seconds = finished.seconds
    result.secondsPerStep = finished.secondsPerStep
    result.fallbacks = finished.fallbacks.keys.sorted()
    result.oneGraphAtATime = finished.isOneByOne
  }

  private func takeTest(_ result: inout Result, out: String) throws {
    guard let tested = studio.tested else { return }
    let name = "\(out).report.json"
    try Data(contentsOf: tested.file).write(to: folder.appendingPathComponent(name), options: .atomic)
    result.report = name
    result.isSameModel = tested.report.passed
    result.samePicturePsnrDb = tested.report.picture?.psnrDb
    result.controlsDb = Dictionary(uniqueKeysWithValues: tested.controls.map { ($0.kind.rawValue, $0.psnrDb) })
  }
}
