/// What to draw. What is nil is as the bundle's defaults say.
public struct Request: Equatable, Sendable {
  public var prompt: String
  /// Nil: none was given, which is not the same as an empty one.
  public var negativePrompt: String?
  /// An integer from -2^63 to 2^64-1.
  public var seed: String
  public var steps: Int?
  public var guidance: Double?
  public var sampler: String?
  /// For image to image; of any size.
  public var picture: Picture?
  public var strength: Double?
  /// Whether both halves of guidance go through a graph in one call, where the program allows it.
  public var oneBatch: Bool

  public init(
    prompt: String, negativePrompt: String? = nil, seed: String, steps: Int? = nil, guidance: Double? = nil,
    sampler: String? = nil, picture: Picture? = nil, strength: Double? = nil, oneBatch: Bool = true
  ) {
    self.prompt = prompt
    self.negativePrompt = negativePrompt
    self.seed = seed
    self.steps = steps
    self.guidance = guidance
    self.sampler = sampler
    self.picture = picture
    self.strength = strength
    self.oneBatch = oneBatch
  }
}

/// What a drawing says on its way.
public enum DrawEvent: Sendable {
  /// A stage of the program begins, such as encode_prompt or decode.
  case stage(String)
  /// A graph is opened on a unit. The first time after an installation this can take minutes on the Neural Engine.
  case opening(graph: String, unit: String)
  case step(StepDone)
  case finished(Drawn)
}

/// One row of the step table that is done.
public struct StepDone: Sendable {
  /// Counted from 1.
  public let row: Int
  public let rows: Int
  public let seconds: Double
  let latents: [Float]
  let pipeline: Pipeline

  /// Makes a rough picture, one pixel for each latent; nil where the bundle has no matrix for it.
  public func preview() -> Picture? {
    pipeline.preview.map {
      Picture(preview: latents, width: pipeline.latents[3], height: pipeline.latents[2], preview: $0)
    }
  }
}

/// A picture, and how it came to be.
public struct Drawn: Sendable {
  public let picture: Picture
  /// The ends of the prompts for which there was no room, or empty texts.
  public let cut: String
  public let negativeCut: String
  public let seconds: Double
  /// What a PNG file says of how the picture was made.
  public let facts: [String: String]
  /// Graphs that ran on the CPU and not where they were wished to, each with the reason.
  public let fallbacks: [String: EngineError]
  /// How long graphs stayed open.
  public let residency: Residency
  let latents: [Float]
}
