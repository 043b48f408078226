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

  /// What the manifest says of a unit on which a graph is known to be wrong; nil: it knows of none.
  public func knownBad(unit: String) -> String? {
    graphs.values.sorted { $0.name < $1.name }.compactMap { $0.units[unit] }.first(where: \.isBad).map { $0.note ?? "" }
  }

  /// The unit that most graphs were made for.
  public var madeForUnit: String {
    let counts = Dictionary(grouping: graphs.values, by: \.computeUnit).mapValues(\.count)
    return counts.max { ($0.value, $1.key) < ($1.value, $0.key) }?.key ?? "cpu"
  }
}
