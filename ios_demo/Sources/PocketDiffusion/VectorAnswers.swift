/// What this engine makes of a case of a conformance vector, by the vector's kind.
struct VectorAnswers {
  private static let width = 16  // values in a row of the vectors' latents

  private let generator: Generator
  private var vae: Pipeline.VAE { generator.pipeline.vae }

  init(_ generator: Generator) { self.generator = generator }

  /// Arrays by the names of `expected`; nil for a kind that this engine does not know.
  func answer(_ kind: String, _ given: VectorCase) throws -> Values? {
    switch kind {
    case "tokens": return try tokens(given)
    case "vocabulary": return vocabulary(try tokenizer(of: given))
    case "noise": return try noise(given)
    case "start": return ["latents": Self.rows(try runs(given).map { try first($0, given) })]
    case "run": return try run(given)
    case "whole_run": return try wholeRun(given)
    case "guidance": return try guidance(given)
    case "decoder_scale":
      let latents = try given.array("latents")
      return ["decoder_latents": Tensor(Latents.toDecoder(latents.floats, vae), shape: latents.shape)]
    case "posterior":
      let noise = try given.array("noise")
      let z = Latents.sample(posterior: try given.floats("parameters"), noise: noise.floats)
      return ["latents": Tensor(Latents.fromEncoder(z, vae), shape: noise.shape)]
    case "picture_to_array":
      let picture = try given.array("picture", .uint8)
      return ["array": Picture(width: picture.shape[1], height: picture.shape[0], rgb: picture.bytes).tensor]
    case "array_to_picture":
      let array = try given.array("array")
      let (height, width) = (array.shape[2], array.shape[3])
      let picture = Picture(decoded: array.floats, width: width, height: height)
      return ["picture": Tensor(dtype: .uint8, shape: [height, width, 3], bytes: picture.rgb)]
    default: return nil
    }
  }

  private func tokenizer(of given: VectorCase) throws -> Tokenizer {
    let number = Int(given.numbers["tokenizer"] ?? 1)
    guard generator.tokenizers.indices.contains(number - 1) else {
      throw EngineError.refusal(what: "tokenizer \(number)")
    }
    return generator.tokenizers[number - 1]
  }

  private func tokens(_ given: VectorCase) throws -> Values {
    let made = try tokenizer(of: given).input(try given.text("prompt"))
    return [
      "ids": Tensor(made.ids, shape: [made.ids.count]), "mask": Tensor(made.mask, shape: [made.mask.count]),
      "cut": Self.bytes(Array(made.cut.utf8)),
    ]
  }

  private func vocabulary(_ tokenizer: Tokenizer) -> Values {
    let entries = tokenizer.pairs.vocabulary.sorted { $0.value < $1.value }
    let byteOf = Dictionary(uniqueKeysWithValues: zip(BytePairs.characters, UInt8.min...UInt8.max))
    var ids: [Int32] = []
    for (token, _) in entries {
      let scalars = token.hasSuffix(BytePairs.end) ? token.unicodeScalars.dropLast(4) : token.unicodeScalars[...]
      let bytes = scalars.compactMap { byteOf[$0] }
      guard bytes.count == scalars.count, let text = String(utf8: bytes) else { continue }
      ids += tokenizer.ids(text) + [-1]
    }
    return [
      "vocabulary": Self.digest(Array(entries.map { "\($0.key) \($0.value)\n" }.joined().utf8)),
      "merges": Self.digest(Array(tokenizer.pairs.lines.map { "\($0)\n" }.joined().utf8)),
      "entries": Self.digest(Tensor(ids, shape: [ids.count]).bytes),
    ]
  }

  private func noise(_ given: VectorCase) throws -> Values {
    var random = try TorchRandom(seed: given.text("seed"))
    let draws = try given.ints("sizes").map { random.normal($0) }
    let values = zip(try given.ints("draw"), try given.ints("at")).map { draws[$0][$1] }
    return ["values": Tensor(values, shape: [values.count])]
  }

  private func runs(_ given: VectorCase) throws -> [StepRun] {
    let sampler = try given.text("sampler")
    return try zip(given.ints("steps"), given.ints("starts")).map { steps, start in
      try generator.tables.run(sampler, steps: steps, start: start)
    }
  }

  private func first(_ run: StepRun, _ given: VectorCase) throws -> [Float] {
    Latents.first(
      run, noise: Array(try given.floats("noise").prefix(Self.width)),
      image: given.arrays["image"] == nil ? nil : try given.floats("image"))
  }

  /// What goes into each row of a run, and comes out, with a model that is an arithmetic with recorded outputs.
  private func follow(_ run: StepRun, _ given: VectorCase) throws -> [(scaled: [Float], latents: [Float])] {
    let (outputs, noise) = (try given.floats("outputs"), try given.floats("noise"))
    var denoising = Denoising(try first(run, given))
    return run.rows.enumerated().map { r, row in
      let scaled = denoising.scaled(row)
      let moved = row.timestep / 1000
      let output = (0..<Self.width).map { outputs[r * Self.width + $0] + 0.25 * scaled[$0] + moved }
      denoising.advance(row, output: output, noise: Array(noise[(r + 1) * Self.width..<(r + 2) * Self.width]))
      return (scaled, denoising.latents)
    }
  }

  private func run(_ given: VectorCase) throws -> Values {
    let all = try runs(given).map { try follow($0, given).map(\.latents) }
    let means = all.map { run in
      (0..<Self.width).map { i in Float(run.reduce(0.0) { $0 + Double($1[i]) } / Double(run.count)) }
    }
    return ["latents": Self.rows(all.map { $0[$0.count - 1] }), "means": Self.rows(means)]
  }

  private func wholeRun(_ given: VectorCase) throws -> Values {
    guard let run = try runs(given).first else { return [:] }
    let rows = try follow(run, given)
    return [
      "timesteps": Tensor(run.rows.map(\.timestep), shape: [rows.count]), "scaled": Self.rows(rows.map(\.scaled)),
      "latents": Self.rows(rows.map(\.latents)),
    ]
  }

  private func guidance(_ given: VectorCase) throws -> Values {
    let (scale, positive) = (try given.number("guidance"), try given.array("positive"))
    let output =
      scale > 1
      ? Latents.guide(negative: try given.floats("negative"), positive: positive.floats, guidance: scale)
      : positive.floats
    return ["output": Tensor(output, shape: positive.shape)]
  }

  private static func rows(_ rows: [[Float]]) -> Tensor { Tensor(rows.flatMap { $0 }, shape: [rows.count, width]) }

  private static func bytes(_ bytes: [UInt8]) -> Tensor { Tensor(dtype: .uint8, shape: [bytes.count], bytes: bytes) }

  private static func digest(_ bytes: [UInt8]) -> Tensor { Self.bytes(SHA256.digest(of: bytes)) }
}
