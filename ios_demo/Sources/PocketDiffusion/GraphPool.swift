/// How long graphs stay open.
public enum Residency: Int, Sendable, CaseIterable, Comparable {
  /// Until the generator is closed: the next picture begins at once.
  case keep
  /// For the stage that needs them.
  case stage
  /// Until another graph is called: never two are open. The least memory; where a step has several graphs, each step
  /// opens them anew.
  case call

  public static func < (one: Residency, other: Residency) -> Bool { one.rawValue < other.rawValue }
}

/// The graphs that are open. A unit that refuses a graph, or that the manifest knows to be bad, gives way to the CPU, and
/// `fallbacks` says so.
final class GraphPool {
  private static let cpu = "cpu"

  var residency: Residency
  private(set) var fallbacks: [String: EngineError] = [:]
  private let bundle: ModelBundle
  private let engine: any GraphEngine
  private let wishedUnit: @Sendable (PipelineGraph) -> String
  private var open: [String: any GraphRunner] = [:]

  init(
    bundle: ModelBundle, engine: any GraphEngine, residency: Residency,
    wishedUnit: @escaping @Sendable (PipelineGraph) -> String
  ) {
    self.bundle = bundle
    self.engine = engine
    self.residency = residency
    self.wishedUnit = wishedUnit
  }

  /// The names of the graphs that are open.
  var openNames: Set<String> { Set(open.keys) }

  /// Opens the graphs of a stage, where they stay open together: the copies that an engine needs while it loads one then
  /// never lie beside what it keeps of calls. `onOpen` hears of each before, and may end it by throwing.
  func beginStage(_ graphs: [PipelineGraph], onOpen: (PipelineGraph, String) throws -> Void) throws {
    if residency == .call { return }
    for graph in graphs { _ = try get(graph, onOpen: onOpen) }
  }

  /// The graph, which is opened where it is not; `onOpen` hears of it before.
  func get(_ graph: PipelineGraph, onOpen: (PipelineGraph, String) throws -> Void) throws -> any GraphRunner {
    if let runner = open[graph.name] { return runner }
    if residency == .call { close() }
    let runner = try orOnCPU(graph) { unit in
      try engine.check(graph, on: unit)
      try onOpen(graph, unit)
      return try engine.open(graph, of: bundle, on: unit)
    }
    open[graph.name] = runner
    return runner
  }

  func unit(of graph: PipelineGraph) -> String { fallbacks[graph.name] == nil ? wishedUnit(graph) : Self.cpu }

  /// Tells whether the graph can be run, as far as it is known without opening it. Throws what `GraphEngine.check` does.
  func check(_ graph: PipelineGraph) throws { try orOnCPU(graph) { try engine.check(graph, on: $0) } }

  func endStage() {
    if residency != .keep { close() }
  }

  func close() { open = [:] }

  /// Closes all graphs, and forgets which were refused in one attempt: the next may go well. What is known beforehand of
  /// a unit stays.
  func reset() {
    close()
    fallbacks = fallbacks.filter { $0.value.isKnownBeforehand }
  }

  /// Does `work` on the graph's unit, or else on the CPU. Where that fails too, the first error is the one to tell.
  private func orOnCPU<Result>(_ graph: PipelineGraph, _ work: (String) throws -> Result) throws -> Result {
    let unit = unit(of: graph)
    do {
      return try work(unit)
    } catch let error as EngineError {
      guard unit != Self.cpu, error.isOfUnit, let done = try? work(Self.cpu) else { throw error }
      fallbacks[graph.name] = error
      return done
    }
  }
}

extension EngineError {
  /// Whether it is told of each attempt alike.
  fileprivate var isKnownBeforehand: Bool {
    switch self {
    case .unitKnownBad, .unitNotHere: true
    default: false
    }
  }

  /// Whether another unit may do better.
  fileprivate var isOfUnit: Bool {
    switch self {
    case .unitKnownBad, .unitNotHere, .engineFailure: true
    default: false
    }
  }
}
