import PocketDiffusion

/// What a person asked to be drawn. Nil stands for what the bundle says.
public struct Wish: Codable, Equatable, Sendable {
  public var prompt: String
  public var negativePrompt: String?
  public var seed: String
  public var steps: Int?
  public var guidance: Double?
  public var sampler: String?
  public var strength: Double?
  public var unit: String?
  public var leastMemory = false
  /// Whether it starts from the photo that the app keeps.
  public var fromPhoto = false

  public init(prompt: String, seed: String) {
    self.prompt = prompt
    self.seed = seed
  }

  init(_ settings: Settings, pipeline: Pipeline, fromPhoto: Bool) {
    prompt = settings.prompt
    seed = settings.seed
    negativePrompt = pipeline.takesNegativePrompt && !settings.negativePrompt.isEmpty ? settings.negativePrompt : nil
    steps = settings.steps
    guidance = pipeline.takesGuidance ? settings.guidance : nil
    sampler = settings.sampler
    self.fromPhoto = fromPhoto && pipeline.takesPicture
    strength = self.fromPhoto ? settings.strength : nil
    unit = settings.unit
    leastMemory = settings.leastMemory
  }

  func request(photo: Picture?) -> Request {
    Request(
      prompt: prompt, negativePrompt: negativePrompt, seed: seed, steps: steps, guidance: guidance, sampler: sampler,
      picture: photo, strength: strength, oneBatch: !leastMemory)
  }
}
