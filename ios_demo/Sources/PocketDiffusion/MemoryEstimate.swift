/// The memory that a drawing takes, as far as the manifest counts it (docs/BUNDLE.md, section 5, `memory`). An engine adds
/// its own code, copies of weights in another layout and scratch space: `factor` and `overhead` are for these, a guess that
/// device reports can better.
public struct MemoryEstimate {
  private static let factor = 1.1
  private static let overhead: Int64 = 64 << 20

  private let stages: [[PipelineGraph]]

  public init(_ generator: Generator, hasPicture: Bool) throws {
    stages = try generator.stages(hasPicture: hasPicture).map { try generator.pipeline.graphs(of: $0) }
  }

  /// Bytes at the peak, beside what the graphs that are `open` take already; nil where the weights of a graph are not
  /// known.
  public func peak(_ residency: Residency, open: Set<String> = []) -> Int64? {
    if stages.joined().contains(where: { $0.memory?.weightsBytes == nil }) { return nil }
    var kept: [String: PipelineGraph] = [:]  // of the stages before
    var peak: Int64 = 0
    for graphs in stages {
      let own = graphs.filter { kept[$0.name] == nil }
      let before = kept.values.reduce(0) { $0 + Self.kept($1) }
      peak = max(peak, before + (residency == .call ? Self.oneByOne(own) : Self.together(own)))
      if residency == .keep { for graph in own { kept[graph.name] = graph } }
    }
    let taken = kept.values.filter { open.contains($0.name) }.reduce(0) { $0 + Self.weights($1) }
    return Int64(Double(peak - taken) * Self.factor) + Self.overhead
  }

  /// The most comfortable way to keep graphs that fits into `left` bytes, beginning with `wished`. Throws
  /// `notEnoughMemory`, where none does. What is not known is let through.
  public func choose(left: Int64, wished: Residency, open: Set<String> = []) throws -> Residency {
    for residency in Residency.allCases where residency >= wished {
      guard let needs = peak(residency, open: open) else { return residency }
      if needs <= left { return residency }
    }
    throw EngineError.notEnoughMemory(needsBytes: peak(.call) ?? 0, leftBytes: left)
  }

  private static func oneByOne(_ graphs: [PipelineGraph]) -> Int64 {
    graphs.map { max(opening($0), called($0)) }.max() ?? 0
  }

  /// All are opened one after the other, and then called one after the other.
  private static func together(_ graphs: [PipelineGraph]) -> Int64 {
    var (opened, peak): (Int64, Int64) = (0, 0)
    for graph in graphs {
      peak = max(peak, opened + opening(graph))
      opened += weights(graph)
    }
    let calling = graphs.map { called($0) - kept($0) }.max() ?? 0
    return max(peak, graphs.reduce(0) { $0 + kept($1) } + calling)
  }

  private static func weights(_ graph: PipelineGraph) -> Int64 { graph.memory?.weightsBytes ?? 0 }

  private static func opening(_ graph: PipelineGraph) -> Int64 { graph.memory?.opening ?? 0 }

  private static func called(_ graph: PipelineGraph) -> Int64 { graph.memory?.called ?? 0 }

  private static func kept(_ graph: PipelineGraph) -> Int64 { graph.memory?.kept ?? 0 }
}
