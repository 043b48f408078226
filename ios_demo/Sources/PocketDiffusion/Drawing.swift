import Dispatch

/// One picture on its way: the parts of the other files in their order (docs/BUNDLE.md, sections 3 to 10).
struct Drawing {
  private let generator: Generator
  private let request: Request
  private let cancellation: Cancellation
  private let began = DispatchTime.now()
  private let steps: Int
  private let guidance: Double
  private let strength: Double
  private let sampler: String
  private let stages: [String: Stage]
  private let run: StepRun
  private var random: TorchRandom
  private var shared: Values = [:]  // values that both halves of guidance share
  private var pipeline: Pipeline { generator.pipeline }
  private var program: Program { generator.pipeline.program }
  private var size: Int { pipeline.latents.reduce(1, *) }

  /// Throws `badRequest` and `refusal` for what cannot be drawn.
  init(generator: Generator, request: Request, cancellation: Cancellation) throws {
    let defaults = generator.pipeline.defaults
    self.generator = generator
    self.request = request
    self.cancellation = cancellation
    steps = request.steps ?? defaults.steps
    guidance = request.guidance ?? defaults.guidance
    strength = request.strength ?? defaults.strength
    sampler = request.sampler ?? generator.pipeline.steps.defaultSampler
    random = try TorchRandom(seed: request.seed)
    let all = try generator.stages(hasPicture: request.picture != nil)
    stages = Dictionary(uniqueKeysWithValues: all.map { ($0.stage, $0) })
    if !guidance.isFinite { throw EngineError.badRequest(why: "The guidance has to be a number: 1 is none.") }
    if request.picture != nil && stages[Program.encodeImage] == nil {
      throw EngineError.badRequest(why: "This bundle cannot start from a picture.")
    }
    let start = request.picture == nil ? 0 : try ImageToImage.start(steps: steps, strength: strength)
    run = try generator.tables.run(sampler, steps: steps, start: start)
    if run.rows.contains(where: \.drawsNoise) && !program.draws.contains(.steps) {
      throw EngineError.refusal(what: "a program without the draw steps")
    }
    if program.guidance == .embedded { shared["guidance"] = Tensor([Float(guidance)], shape: [1]) }
  }

  mutating func draw(_ say: @escaping (DrawEvent) -> Void) throws -> Drawn {
    let isGuided = program.guidance == .classifierFree && guidance > 1
    let prompts = isGuided ? [request.negativePrompt, request.prompt] : [request.prompt]
    let tokens = prompts.map { text in generator.tokenizers.map { $0.input(text ?? "") } }
    let halves = try encode(prompts, tokens, say)
    let first = try start(say)
    let latents = try denoise(halves, from: first, say)
    let picture = try decode(latents, say)
    return Drawn(
      picture: picture, cut: Self.longestCut(tokens.last ?? []),
      negativeCut: isGuided ? Self.longestCut(tokens[0]) : "", seconds: seconds(since: began), facts: facts,
      fallbacks: generator.pool.fallbacks, residency: generator.pool.residency, latents: latents)
  }

  /// The values of each half: those that encode_prompt makes, and those that it begins with.
  private func encode(
    _ prompts: [String?], _ tokens: [[Tokens]], _ say: @escaping (DrawEvent) -> Void
  ) throws -> [Values] {
    let own = tokens.map(values)
    guard let stage = stages[Program.encodePrompt] else { return own }
    let isZeros = prompts.map { $0 == nil && program.absentNegative == .zeros }
    var made = try runStage(stage, halves: zip(own, isZeros).filter { !$1 }.map(\.0), say)[...]
    return try zip(own, isZeros).map { values, isZeros in
      values.merging(isZeros ? try runner(say).zeros(stage) : made.removeFirst()) { $1 }
    }
  }

  /// The host values of one half.
  private func values(_ tokens: [Tokens]) -> Values {
    let (height, width) = (Float(pipeline.picture.height), Float(pipeline.picture.width))
    var values = ["time_ids": Tensor([height, width, 0, 0, height, width], shape: [1, 6])]
    for (n, one) in tokens.enumerated() {
      values["tokens/\(n + 1)"] = Tensor(one.ids, shape: [1, one.ids.count])
      values["attention_mask/\(n + 1)"] = Tensor(one.mask, shape: [1, one.mask.count])
    }
    return values
  }

  /// The latents before the first row. Noise is drawn in the program's order; for steps always last, see `denoise`.
  private mutating func start(_ say: @escaping (DrawEvent) -> Void) throws -> [Float] {
    if let picture = request.picture, let stage = stages[Program.encodeImage] {
      let (width, height) = (pipeline.picture.width, pipeline.picture.height)
      shared["picture"] = ImageToImage.resize(picture, width: width, height: height).tensor
      shared.merge(try runStage(stage, halves: [[:]], say)[0]) { $1 }
    }
    let posterior = try shared["posterior"].map { try floats($0, of: "posterior", count: 2 * size) }
    var noise: [Program.Draw: [Float]] = [:]
    for draw in program.draws where draw == .start || draw == .posterior && posterior != nil {
      noise[draw] = random.normal(size)
    }
    func drawn(_ draw: Program.Draw) throws -> [Float] {
      guard let values = noise[draw] else {
        throw EngineError.refusal(what: "a program without the draw \(draw.rawValue)")
      }
      return values
    }
    var image: [Float]?
    if let posterior {
      image = Latents.sample(posterior: posterior, noise: try drawn(.posterior))
    } else if request.picture != nil {
      image = try result(shared, "image_latents", count: size)
    }
    return Latents.first(run, noise: try drawn(.start), image: image.map { Latents.fromEncoder($0, pipeline.vae) })
  }

  private mutating func denoise(
    _ halves: [Values], from first: [Float], _ say: @escaping (DrawEvent) -> Void
  ) throws -> [Float] {
    let stage = try stage(Program.denoise)
    try begin(stage, say)
    let stacked = request.oneBatch && halves.count > 1 && program.canStack(stage)
    let runner = runner(say)
    var denoising = Denoising(first)
    for (r, row) in run.rows.enumerated() {
      try cancellation.check()
      let rowBegan = DispatchTime.now()
      let isUnused = r == run.rows.count - 1 && !row.usesOutput  // no part of the latents: the call is left out
      var output = denoising.latents
      if !isUnused {
        shared["latents"] = Tensor(denoising.latents, shape: pipeline.latents)
        shared["scaled_latents"] = Tensor(denoising.scaled(row), shape: pipeline.latents)
        shared["timestep"] = Tensor([row.timestep], shape: [1])
        let own = halves.map { half in shared.merging(half) { $1 } }
        let outputs = try runner.run(stage, halves: own, stacked: stacked).map {
          try result($0, "model_output", count: size)
        }
        output =
          outputs.count > 1
          ? Latents.guide(negative: outputs[0], positive: outputs[1], guidance: guidance) : outputs[0]
      }
      denoising.advance(row, output: output, noise: row.drawsNoise ? random.normal(size) : nil)
      say(
        .step(
          StepDone(
            row: r + 1, rows: run.rows.count, seconds: seconds(since: rowBegan), latents: denoising.latents,
            pipeline: pipeline)))
    }
    generator.pool.endStage()
    return denoising.latents
  }

  private func decode(_ latents: [Float], _ say: @escaping (DrawEvent) -> Void) throws -> Picture {
    let stage = try stage(Program.decode)
    let (width, height, channels) = (pipeline.picture.width, pipeline.picture.height, pipeline.latents[1])
    try begin(stage, say)
    let runner = runner(say)
    func decodePart(_ part: [Float], _ shape: [Int], count: Int) throws -> [Float] {
      let given = shared.merging(["decoder_latents": Tensor(part, shape: shape)]) { $1 }
      return try result(try runner.run(stage, halves: [given])[0], "decoded", count: count)
    }
    let all = Latents.toDecoder(latents, pipeline.vae)
    let decoded =
      try pipeline.tiles.map { tiles in
        try tiles.decode(all, channels: channels) {
          try decodePart($0, tiles.shape(channels: channels), count: tiles.count)
        }
      } ?? decodePart(all, pipeline.latents, count: 3 * width * height)
    generator.pool.endStage()
    return Picture(decoded: decoded, width: width, height: height)
  }

  private func stage(_ name: String) throws -> Stage {
    guard let stage = stages[name] else { throw EngineError.refusal(what: "a program without the stage \(name)") }
    return stage
  }

  private func runStage(
    _ stage: Stage, halves: [Values], _ say: @escaping (DrawEvent) -> Void
  ) throws -> [Values] {
    try begin(stage, say)
    let made = try runner(say).run(stage, halves: halves.map { shared.merging($0) { $1 } })
    generator.pool.endStage()
    return made
  }

  private func begin(_ stage: Stage, _ say: (DrawEvent) -> Void) throws {
    say(.stage(stage.stage))
    try generator.pool.beginStage(pipeline.graphs(of: stage)) { graph, unit in
      try cancellation.check()
      say(.opening(graph: graph.name, unit: unit))
    }
  }

  private func runner(_ say: @escaping (DrawEvent) -> Void) -> ProgramRun {
    ProgramRun(
      pipeline: pipeline, constants: generator.constants,
      graphs: { [pool = generator.pool] graph in
        try pool.get(graph) { say(.opening(graph: $0.name, unit: $1)) }
      }, cancellation: cancellation)
  }

  private func result(_ made: Values, _ name: String, count: Int) throws -> [Float] {
    guard let value = made[name] else { throw EngineError.refusal(what: "a program that makes no \(name)") }
    return try floats(value, of: name, count: count)
  }

  private func floats(_ value: Tensor, of name: String, count: Int) throws -> [Float] {
    if value.count != count { throw EngineError.refusal(what: "\(name) of the shape \(value.shape)") }
    return value.converted(to: .float32).floats
  }

  private var facts: [String: String] {
    var facts = [
      "prompt": request.prompt, "seed": request.seed, "steps": "\(steps)", "guidance": "\(guidance)",
      "sampler": sampler, "bundle_id": generator.bundle.manifest.bundleID,
      "model": generator.bundle.manifest.model.name,
    ]
    facts["negative_prompt"] = request.negativePrompt
    if request.picture != nil { facts["strength"] = "\(strength)" }
    return facts
  }

  private static func longestCut(_ tokens: [Tokens]) -> String {
    tokens.map(\.cut).max { $0.unicodeScalars.count < $1.unicodeScalars.count } ?? ""
  }
}

/// Seconds that have gone by.
func seconds(since began: DispatchTime) -> Double {
  Double(DispatchTime.now().uptimeNanoseconds - began.uptimeNanoseconds) / 1e9
}
