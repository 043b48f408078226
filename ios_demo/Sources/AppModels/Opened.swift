import Foundation
import PocketDiffusion

/// A bundle that is whole, with the engine that draws with it.
public final class Opened: Sendable {
  public let place: Place
  public let bundle: ModelBundle
  public let engine: any GraphEngine
  public let pipeline: Pipeline
  /// On the units that the bundle was made for.
  private let generator: Generator
  private let memory: @Sendable () -> Int64?

  /// Opens the bundle at `place`, compares every file, and chooses the engine. Throws `EngineError`.
  init(
    _ place: Place, digests: DigestMemory, engines: [any GraphEngine], memory: @escaping @Sendable () -> Int64?,
    cancellation: Cancellation, onProgress: (_ done: Int64, _ total: Int64) -> Void
  ) throws {
    self.place = place
    bundle = try ModelBundle(folder: place.folder, digests: digests)
    try bundle.checkAll { done, total in
      try cancellation.check()
      onProgress(done, total)
    }
    let formats = bundle.manifest.formatNames
    guard let engine = engines.first(where: { formats.contains($0.format) }) else {
      let (has, runs) = (formats.joined(separator: ", "), engines.map(\.format).joined(separator: ", "))
      throw EngineError.cannotRunHere(graph: place.name, why: "it holds \(has), and this app runs \(runs)")
    }
    self.engine = engine
    self.memory = memory
    generator = try Generator(bundle: bundle, engine: engine, availableMemory: memory)
    pipeline = generator.pipeline
  }

  public var name: String { bundle.manifest.model.name }
  public var samplers: [String] { pipeline.steps.samplerNames }

  /// The units to choose from: the engine has each, and the manifest knows no graph to be wrong on it.
  public var units: [String] { engine.units.filter { pipeline.knownBad(unit: $0) == nil } }

  /// Units of the engine that are not offered, with the first graph that the manifest knows to be wrong there.
  public var badUnits: [(unit: String, graph: PipelineGraph)] {
    engine.units.compactMap { unit in pipeline.knownBad(unit: unit).map { (unit, $0) } }
  }

  /// What is to say of units that are not used.
  public var unitNotes: [Phrase] {
    badUnits.map { bad in
      let note = bad.graph.units[bad.unit]?.note ?? ""
      return Phrase(.unitLeftOut, .phrase(Message.unit(bad.unit)), .text(note), .text(bad.graph.name))
    }
  }

  /// The bytes that drawing takes at its peak; nil where the manifest does not count them.
  public func peakBytes(hasPhoto: Bool, leastMemory: Bool) -> Int64? {
    (try? MemoryEstimate(generator, hasPicture: hasPhoto))?.peak(leastMemory ? .call : .keep)
  }

  /// A generator on a unit, or with nil on those that the bundle was made for.
  func generator(unit: String?, leastMemory: Bool) throws -> Generator {
    if unit == nil && !leastMemory { return generator }
    return try Generator(
      bundle: bundle, engine: engine, residency: leastMemory ? .call : .keep,
      wishedUnit: { unit ?? $0.computeUnit }, availableMemory: memory)
  }
}
