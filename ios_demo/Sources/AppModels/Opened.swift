import Foundation
import PocketDiffusion

/// A bundle that is whole, with the engine that draws with it.
public final class Opened: Sendable {
  public let place: Place
  public let bundle: ModelBundle
  public let engine: any GraphEngine
  public let pipeline: Pipeline
  private let verdicts: UnitVerdicts
  /// On the units of `planned`.
  private let generator: Generator
  private let planned: [String: String]
  private let memory: @Sendable () -> Int64?

  /// Opens the bundle at `place`, compares every file, and chooses the engine. Throws `EngineError`.
  init(
    _ place: Place, digests: DigestMemory, engines: [any GraphEngine], verdicts: UnitVerdicts,
    memory: @escaping @Sendable () -> Int64?, cancellation: Cancellation,
    onProgress: (_ done: Int64, _ total: Int64) -> Void
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
    self.verdicts = verdicts
    pipeline = try bundle.pipeline(format: engine.format)
    let units = Self.units(pipeline, bundle.manifest.runtimeID, verdicts)
    planned = units
    generator = try Generator(
      bundle: bundle, engine: engine, wishedUnit: { units[$0.name] ?? $0.computeUnit }, availableMemory: memory)
  }

  public var name: String { bundle.manifest.model.name }
  public var samplers: [String] { pipeline.steps.samplerNames }

  /// The units to choose from: the engine has each, and each graph is known or was tested to be right on it.
  public var units: [String] {
    engine.units.filter { unit in
      pipeline.graphs.values.allSatisfy { verdicts.allows($0, runtimeID: bundle.manifest.runtimeID, unit: unit) }
    }
  }

  /// Units that graphs are made for and do not run on, since no self-test has found them right there.
  public var untestedUnits: [String] {
    let units = units(wished: nil)
    let unused = pipeline.graphs.values.filter { graph in
      units[graph.name] != graph.computeUnit && graph.units[graph.computeUnit]?.isBad != true
    }
    return engine.units.filter { unit in unused.contains { $0.computeUnit == unit } }
  }

  /// Units of the engine that are not offered, with the first graph that the manifest knows to be wrong there.
  public var badUnits: [(unit: String, graph: PipelineGraph)] {
    engine.units.compactMap { unit in pipeline.knownBad(unit: unit).map { (unit, $0) } }
  }

  /// What is to say of units that are not used.
  public var unitNotes: [Phrase] {
    let bad = badUnits.map { bad in
      let note = bad.graph.units[bad.unit]?.note ?? ""
      return Phrase(.unitLeftOut, .phrase(Message.unit(bad.unit)), .text(note), .text(bad.graph.name))
    }
    return bad + untestedUnits.map { Phrase(.unitUntested, .phrase(Message.unit($0))) }
  }

  /// The bytes that drawing takes at its peak, where graphs are kept so; nil where the manifest does not count them.
  public func peakBytes(hasPhoto: Bool, _ residency: Residency) -> Int64? {
    (try? MemoryEstimate(generator, hasPicture: hasPhoto))?.peak(residency)
  }

  /// By graphs, the unit that was wished; with nil the one that the graph was made for, where it is known or was tested
  /// to be right there, else the CPU.
  func units(wished: String?) -> [String: String] {
    wished.map { unit in pipeline.graphs.mapValues { _ in unit } }
      ?? Self.units(pipeline, bundle.manifest.runtimeID, verdicts)
  }

  private static func units(_ pipeline: Pipeline, _ runtimeID: String, _ verdicts: UnitVerdicts) -> [String: String] {
    pipeline.graphs.mapValues { graph in
      verdicts.allows(graph, runtimeID: runtimeID, unit: graph.computeUnit) ? graph.computeUnit : "cpu"
    }
  }

  /// A generator that runs graphs on `units`.
  func generator(units: [String: String], leastMemory: Bool) throws -> Generator {
    if units == planned && !leastMemory { return generator }
    return try Generator(
      bundle: bundle, engine: engine, residency: leastMemory ? .call : .keep,
      wishedUnit: { units[$0.name] ?? $0.computeUnit }, availableMemory: memory)
  }
}
