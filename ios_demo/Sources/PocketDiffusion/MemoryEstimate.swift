/// The memory that a drawing takes, as far as the manifest counts it: weights and activations of the graphs that are open
/// at once, at their largest. An engine adds its own code, copies of weights in another layout and scratch space:
/// `factor` and `overhead` are for these, a guess that device reports can better.
public struct MemoryEstimate {
  private static let factor = 1.1
  private static let overhead: Int64 = 64 << 20

  private let stages: [(name: String, graphs: [PipelineGraph])]

  public init(_ generator: Generator, hasPicture: Bool) throws {
    stages = try generator.stages(hasPicture: hasPicture).map { stage in
      (stage.stage, try Set(stage.calls.map(\.graph)).sorted().map(generator.pipeline.graph))
    }
  }

  /// Bytes at the peak, beside what the graphs that are `open` take already; nil where the weights of a graph are not
  /// known.
  public func peak(_ residency: Residency, open: Set<String> = []) -> Int64? {
    let all = Dictionary(stages.flatMap(\.graphs).map { ($0.name, $0) }) { first, _ in first }
    if all.values.contains(where: { $0.memory?.weightsBytes == nil }) { return nil }
    func weights(_ graphs: some Sequence<PipelineGraph>) -> Int64 { graphs.reduce(0) { $0 + Self.weights($1) } }
    let peak = stages.map { stage in
      let largest = stage.graphs.map(Self.activations).max() ?? 0
      if residency == .keep { return weights(all.values) + largest }
      if residency == .stage || stage.name == Program.denoise { return weights(stage.graphs) + largest }
      return stage.graphs.map { Self.weights($0) + Self.activations($0) }.max() ?? 0
    }
    let taken = residency == .keep ? weights(all.values.filter { open.contains($0.name) }) : 0
    return Int64(Double((peak.max() ?? 0) - taken) * Self.factor) + Self.overhead
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

  private static func weights(_ graph: PipelineGraph) -> Int64 { graph.memory?.weightsBytes ?? 0 }

  private static func activations(_ graph: PipelineGraph) -> Int64 { graph.memory?.activationsBytes ?? 0 }
}
