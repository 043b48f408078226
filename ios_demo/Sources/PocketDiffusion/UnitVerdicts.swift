import Foundation

/// What self-tests found of graphs on this device's compute units: of a unit of which the manifest knows nothing they
/// decide (docs/BUNDLE.md, section 5). A verdict is one of a bundle's runtime part and of a version of the operating
/// system, which brings the drivers. `store`, where they are kept between runs of the app, lies outside of the bundle;
/// without one they are kept in memory.
public final class UnitVerdicts: @unchecked Sendable {  // `lock` guards `known` and the store
  private let os: ProgramVersion
  private let store: URL?
  private let lock = NSLock()
  private var known: [String: Bool]  // whether it passed

  /// A store that cannot be read is none: the units are tested again.
  public init(os: ProgramVersion, store: URL? = nil) {
    self.os = os
    self.store = store
    let data = store.flatMap { try? Data(contentsOf: $0) }
    known = data.flatMap { try? JSONDecoder().decode([String: Bool].self, from: $0) } ?? [:]
  }

  /// Whether the graph was right on the unit; nil: it was not tested.
  public func passed(runtimeID: String, graph: String, unit: String) -> Bool? {
    lock.withLock { known[key(runtimeID, graph, unit)] }
  }

  /// Whether drawings may run the graph on the unit: it is the CPU, known to be good, or was tested here.
  public func allows(_ graph: PipelineGraph, runtimeID: String, unit: String) -> Bool {
    if let known = graph.units[unit], known.isBad || known.isGood { return known.isGood }
    return unit == "cpu" || passed(runtimeID: runtimeID, graph: graph.name, unit: unit) == true
  }

  /// Keeps what a self-test found. A store that cannot be written, where storage is full, costs another self-test, and
  /// no more.
  public func remember(_ report: DeviceReport) {
    lock.withLock {
      for result in report.graphs { known[key(report.runtimeID, result.graph, result.unit)] = result.passed }
      guard let store, let data = try? JSONEncoder().encode(known) else { return }
      try? data.write(to: store, options: .atomic)
    }
  }

  private func key(_ runtimeID: String, _ graph: String, _ unit: String) -> String {
    [runtimeID, graph, unit, os.name, os.version].joined(separator: "|")
  }
}
