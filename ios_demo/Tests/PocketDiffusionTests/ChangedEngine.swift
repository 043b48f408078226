import Foundation

@testable import PocketDiffusion

/// An engine that stands before another: it counts what is open, may have other units, and may fail.
final class ChangedEngine: GraphEngine, @unchecked Sendable {  // `lock` guards what changes
  let inner: any GraphEngine
  let units: [String]
  /// Called before each call of a graph, with its name; what it throws is what the call throws.
  private let before: @Sendable (String) throws -> Void
  private let after: @Sendable (String, Values) -> Values
  private let lock = NSLock()
  private var counts: [String: String] = [:]
  private var most = 0
  private var names: [String] = []

  init(
    _ inner: any GraphEngine, units: [String]? = nil, before: @escaping @Sendable (String) throws -> Void = { _ in },
    after: @escaping @Sendable (String, Values) -> Values = { $1 }
  ) {
    self.inner = inner
    self.units = units ?? inner.units
    self.before = before
    self.after = after
  }

  var name: String { inner.name }
  var version: String { inner.version }
  var format: String { inner.format }
  /// The graphs that are open, and the unit of each.
  var open: [String: String] { lock.withLock { counts } }
  var mostOpen: Int { lock.withLock { most } }
  /// The graphs that were ever opened, in their order, one as often as it was opened.
  var opened: [String] { lock.withLock { names } }

  func arithmetic(of graph: PipelineGraph, on unit: String) -> String { inner.arithmetic(of: graph, on: unit) }

  func open(_ graph: PipelineGraph, of bundle: ModelBundle, on unit: String) throws -> any GraphRunner {
    let runner = try inner.open(graph, of: bundle, on: "cpu")
    lock.withLock {
      counts[graph.name] = unit
      names.append(graph.name)
      most = max(most, counts.count)
    }
    return Runner(runner, graph, self)
  }

  private final class Runner: GraphRunner {
    private let inner: any GraphRunner
    private let graph: PipelineGraph
    private let engine: ChangedEngine

    init(_ inner: any GraphRunner, _ graph: PipelineGraph, _ engine: ChangedEngine) {
      self.inner = inner
      self.graph = graph
      self.engine = engine
    }

    deinit { engine.lock.withLock { engine.counts[graph.name] = nil } }

    func run(_ inputs: Values, cancellation: Cancellation) throws -> Values {
      try engine.before(graph.name)
      let made = engine.after(graph.name, try inner.run(inputs, cancellation: cancellation))
      for (name, value) in made where !value.isFinite {
        throw EngineError.notFinite(graph: graph.name, output: name)
      }
      return made
    }
  }
}

/// A number that several threads may count up.
final class Counter: @unchecked Sendable {  // `lock` guards it
  private let lock = NSLock()
  private var count = 0

  /// The number after it was counted up.
  @discardableResult func next() -> Int {
    lock.withLock {
      count += 1
      return count
    }
  }

  var value: Int { lock.withLock { count } }
}
