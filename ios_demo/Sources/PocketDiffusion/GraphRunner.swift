/// A graph that is open. Values go in and come out in the convention of the graph's `spec`.
public protocol GraphRunner: AnyObject {
  /// Calls the graph. Throws `notFinite` where a value among the outputs is NaN or infinite, `engineFailure` for what
  /// the engine refuses, and `cancelled`.
  func run(_ inputs: Values, cancellation: Cancellation) throws -> Values
}

/// Opens the graphs of one format.
public protocol GraphEngine: Sendable {
  /// The name and version that a device report states.
  var name: String { get }
  var version: String { get }
  /// The format of a bundle that it opens.
  var format: String { get }
  /// The units that this engine has here, such as cpu, gpu, ane.
  var units: [String] { get }

  /// What a unit computes in: the graph's own arithmetic, but for units that compute in float16 whatever the file says.
  func arithmetic(of graph: PipelineGraph, on unit: String) -> String

  /// Opens a graph on a unit; `check` was called before. Throws `notWhole` for its files, and `engineFailure`.
  func open(_ graph: PipelineGraph, of bundle: ModelBundle, on unit: String) throws -> any GraphRunner

  /// Removes what the engine keeps on the device, such as compiled models, but for what it made of `bundles`.
  func keepOnly(for bundles: [ModelBundle])
}

extension GraphEngine {
  /// An engine that keeps nothing has nothing to remove.
  public func keepOnly(for bundles: [ModelBundle]) {}
}

extension GraphEngine {
  /// Tells whether a graph can be run on a unit, as far as the manifest says. Throws `cannotRunHere`, `unitNotHere`,
  /// `engineTooOld` or `unitKnownBad`.
  public func check(_ graph: PipelineGraph, on unit: String) throws {
    if let engine = graph.engine, engine.name != name {
      throw EngineError.cannotRunHere(graph: graph.name, why: "its file is for \(engine.name)")
    }
    if !units.contains(unit) { throw EngineError.unitNotHere(graph: graph.name, unit: unit, engine: name) }
    if let least = graph.engine?.leastVersion, isOlder(version, than: least) {
      throw EngineError.engineTooOld(graph: graph.name, engine: name, needs: least, has: version)
    }
    try graph.checkUnit(unit)
  }
}

/// Whether version `a` comes before `b`; both are numbers with points between.
func isOlder(_ a: String, than b: String) -> Bool {
  func numbers(_ text: String) -> [Int] { text.split { ".-+".contains($0) }.map { Int($0) ?? 0 } }
  let (left, right) = (numbers(a), numbers(b))
  for i in 0..<max(left.count, right.count) {
    let (one, other) = (i < left.count ? left[i] : 0, i < right.count ? right[i] : 0)
    if one != other { return one < other }
  }
  return false
}
