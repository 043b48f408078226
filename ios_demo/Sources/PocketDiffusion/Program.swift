/// Which graph gets what, and when (docs/BUNDLE.md, section 4). Nothing here knows a family of models: stages, calls and
/// names of values come from the pipeline file.
struct Program: Sendable {
  enum Guidance: String, Sendable {
    case classifierFree = "classifier_free"
    case embedded, none
  }
  enum Draw: String, Sendable { case posterior, start, steps }
  enum AbsentNegative: String, Sendable {
    case zeros
    case encodeEmpty = "encode_empty"
  }

  static let encodePrompt = "encode_prompt"
  static let encodeImage = "encode_image"
  static let denoise = "denoise"
  static let decode = "decode"
  static let stageNames = [encodePrompt, encodeImage, denoise, decode, "preview"]  // in the order of running

  let guidance: Guidance
  /// What stands for a negative prompt that was not given.
  let absentNegative: AbsentNegative
  let draws: [Draw]
  private let stages: [Stage]
  private let specs: [String: GraphSpec]

  /// As it stands in the pipeline file.
  struct File: Decodable {
    let stages: [Stage]
    let guidance: String
    let absentNegative: String
    let draws: [String]
  }

  /// Throws `refusal` for what this engine does not know, also in variants that it would not take.
  init(file: File, specs: [String: GraphSpec], tokenizers: Int) throws {
    func one<Known: RawRepresentable<String>>(_ value: String, _ what: String) throws -> Known {
      guard let known = Known(rawValue: value) else { throw EngineError.refusal(what: "the \(what) \(value)") }
      return known
    }
    for stage in file.stages where !Self.stageNames.contains(stage.stage) && stage.required != false {
      throw EngineError.refusal(what: "the required stage \(stage.stage)")
    }
    stages = file.stages.filter { Self.stageNames.contains($0.stage) }
    var check = ProgramCheck(specs: specs, tokenizers: tokenizers)
    try check.check(stages)
    guidance = try one(file.guidance, "guidance kind")
    absentNegative = try one(file.absentNegative, "absent_negative")
    draws = try file.draws.map { try one($0, "draw") }
    self.specs = specs
  }

  /// The arrays of the bundle that calls take.
  var constants: [ArrayRef] {
    stages.flatMap(\.calls).flatMap(\.inputs.values).compactMap { source in
      if case .constant(let ref) = source { ref } else { nil }
    }
  }

  /// The first variant of a stage for which all host values are there; nil where the program has no such stage.
  func variant(_ name: String, hosts: Set<String>) throws -> Stage? {
    let variants = stages.filter { $0.stage == name }
    if let stage = variants.first(where: { hosts.isSuperset(of: $0.when ?? []) }) { return stage }
    guard let lacking = variants.first?.when?.first(where: { !hosts.contains($0) }) else { return nil }
    throw EngineError.refusal(what: "\(name) without \(lacking)")
  }

  /// The host values that are there: those that always are, and what the kind of guidance and a picture add.
  func hosts(tokenizers: Int, hasPicture: Bool) -> Set<String> {
    var hosts: Set = ["latents", "scaled_latents", "timestep", "decoder_latents", "time_ids"]
    for n in 0..<tokenizers { hosts.formUnion(["tokens/\(n + 1)", "attention_mask/\(n + 1)"]) }
    if guidance == .embedded { hosts.insert("guidance") }
    if hasPicture { hosts.insert("picture") }
    return hosts
  }

  /// Throws `refusal` where a stage takes a value that is neither among `hosts` nor made by a call before.
  func checkGiven(_ stages: [Stage], hosts: Set<String>) throws {
    var there = hosts
    for call in stages.flatMap(\.calls) {
      if let lacking = call.inputs.values.flatMap(\.names).sorted().first(where: { !there.contains($0) }) {
        throw EngineError.refusal(what: "the host value \(lacking), which is not given here")
      }
      there.formUnion(call.outputs.values)
    }
  }

  /// Throws `refusal` where a graph that decodes is not made for tiles of these latents.
  func checkDecoder(_ tiles: Tiles, channels: Int) throws {
    for call in stages.filter({ $0.stage == Self.decode }).flatMap(\.calls) {
      guard let spec = specs[call.graph] else { continue }
      let takes = call.inputs.filter { if case .value("decoder_latents") = $0.value { true } else { false } }
      let makes = call.outputs.filter { $0.value == "decoded" }
      let isGood =
        takes.keys.allSatisfy { spec.input($0)?.resolved() == tiles.shape(channels: channels) }
        && makes.keys.allSatisfy { spec.output($0)?.resolved() == tiles.pictureShape }
      if !isGood { throw EngineError.refusal(what: "vae.tile_size, which the graph \(call.graph) is not made for") }
    }
  }

  /// For each call of a stage, the inputs that depend on the half of guidance.
  func dependsOnHalf(_ stage: Stage) -> [Set<String>] {
    var dependent = Set(stages.filter { $0.stage == Self.encodePrompt }.flatMap(\.made))
    func isOfHalf(_ name: String) -> Bool {
      dependent.contains(name) || name == "time_ids" || name.hasPrefix("tokens/") || name.hasPrefix("attention_mask/")
    }
    return stage.calls.map { call in
      let found = Set(call.inputs.filter { $0.value.names.contains(where: isOfHalf) }.keys)
      if !found.isEmpty { dependent.formUnion(call.outputs.values) }
      return found
    }
  }

  /// Whether every graph of the stage may be called once for both halves.
  func canStack(_ stage: Stage) -> Bool {
    zip(stage.calls, dependsOnHalf(stage)).allSatisfy { call, inputs in
      inputs.allSatisfy { specs[call.graph]?.input($0)?.isFirstAxisFree == true }
    }
  }
}
