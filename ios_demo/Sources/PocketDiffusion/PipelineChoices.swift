/// What a person can choose with a bundle.
extension Pipeline {
  /// Whether the guidance scale changes the picture.
  public var takesGuidance: Bool { program.guidance != .none }

  /// Whether a negative prompt changes the picture.
  public var takesNegativePrompt: Bool { program.guidance == .classifierFree }

  /// The numbers of steps that the tables hold for a sampler, in ascending order.
  public func stepCounts(sampler: String) -> [Int] {
    let rows = steps.samplers[sampler]?.rows ?? []
    return rows.indices.filter { rows[$0] > 0 && $0 < steps.mostSteps }.map { $0 + 1 }
  }

  /// The first graph that the manifest knows to be wrong on a unit; nil: it knows of none.
  public func knownBad(unit: String) -> PipelineGraph? {
    graphs.values.filter { $0.units[unit]?.isBad == true }.min { $0.name < $1.name }
  }

  /// The unit that most graphs were made for.
  public var madeForUnit: String {
    let counts = Dictionary(grouping: graphs.values, by: \.computeUnit).mapValues(\.count)
    return counts.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key ?? "cpu"
  }
}
