/// Refuses programs that this engine cannot run with these graphs, by the name of what it does not know.
struct ProgramCheck {
  let specs: [String: GraphSpec]
  let tokenizers: Int
  private var made: [String: DType] = [:]  // values of calls

  init(specs: [String: GraphSpec], tokenizers: Int) {
    self.specs = specs
    self.tokenizers = tokenizers
  }

  mutating func check(_ stages: [Stage]) throws {
    for name in [Program.denoise, Program.decode] where !stages.contains(where: { $0.stage == name }) {
      throw EngineError.refusal(what: "a program without the stage \(name)")
    }
    for name in Program.stageNames {  // variants stay in their order
      for stage in stages where stage.stage == name {
        for host in stage.when ?? [] where hostDType(host) == nil {
          throw EngineError.refusal(what: "the host value \(host)")
        }
        for call in stage.calls { try check(call) }
      }
    }
  }

  private mutating func check(_ call: Call) throws {
    guard let spec = specs[call.graph] else {
      throw EngineError.refusal(what: "the graph \(call.graph), which the pipeline file has not")
    }
    for input in spec.inputs where call.inputs[input.name] == nil {
      throw EngineError.refusal(what: "a call of \(call.graph) without its input \(input.name)")
    }
    for (name, source) in call.inputs {
      guard let input = spec.input(name) else {
        throw EngineError.refusal(what: "the input \(name) of \(call.graph), which it has not")
      }
      try check(source, for: input, of: call.graph)
    }
    for (name, value) in call.outputs {
      guard let output = spec.output(name) else {
        throw EngineError.refusal(what: "the output \(name) of \(call.graph), which it has not")
      }
      if let other = made[value], other != output.dtype {
        throw EngineError.refusal(what: "the value \(value) of two dtypes")
      }
      made[value] = output.dtype
    }
  }

  private func check(_ source: Source, for input: TensorSpec, of graph: String) throws {
    var dtypes = try source.names.map { name in
      guard let dtype = hostDType(name) ?? made[name] else {
        throw EngineError.refusal(what: "the host value \(name)")
      }
      return dtype
    }
    switch source {
    case .constant(let ref): dtypes.append(ref.dtype)
    case .sum: dtypes.append(.float32)
    case .concat(_, let axis) where axis < 1:
      throw EngineError.refusal(what: "values that are joined along axis \(axis)")
    case .concat: dtypes.append(.float32)
    case .value: break
    }
    if let other = dtypes.first(where: { $0 != input.dtype }) {
      throw EngineError.refusal(
        what: "a value of \(other) for the input \(input.name) of \(graph), which is \(input.dtype)")
    }
  }

  private static let floats: Set = [
    "latents", "scaled_latents", "timestep", "decoder_latents", "picture", "control_picture", "control_scale", "mask",
    "masked_picture", "guidance", "time_ids",
  ]

  /// The dtype of a host value; nil where there is none of this name.
  private func hostDType(_ name: String) -> DType? {
    if Self.floats.contains(name) { return .float32 }
    let parts = name.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, ["tokens", "attention_mask"].contains(parts[0]), let number = Int(parts[1]),
      "\(number)" == parts[1], (1...max(tokenizers, 1)).contains(number), tokenizers > 0
    else { return nil }
    return .int32
  }
}
