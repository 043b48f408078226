import Foundation

/// The arithmetic on latents, all of it in float32: every product and every sum is rounded, in the order that
/// docs/BUNDLE.md writes (sections 4, 7 and 9).
enum Latents {
  /// The sum of factor * array from left to right, beginning with zero; a product whose factor is 0 is left out.
  static func weighted(_ size: Int, _ terms: [(factor: Float, values: [Float]?)]) -> [Float] {
    var sum = [Float](repeating: 0, count: size)
    for (factor, values) in terms where factor != 0 {
      guard let values else { preconditionFailure("a factor is not 0 where there is no value") }
      precondition(values.count == size)
      for i in 0..<size { sum[i] += factor * values[i] }
    }
    return sum
  }

  /// negative + g * (positive - negative), with g rounded to float32.
  static func guide(negative: [Float], positive: [Float], guidance: Double) -> [Float] {
    let g = Float(guidance)
    return zip(negative, positive).map { $0 + g * ($1 - $0) }
  }

  /// The latents before the first row; `image` are those of image to image, or nil.
  static func first(_ run: StepRun, noise: [Float], image: [Float]?) -> [Float] {
    guard let image else { return weighted(noise.count, [(run.initNoiseSigma, noise)]) }
    return weighted(noise.count, [(run.rows[0].signalScale, image), (run.rows[0].noiseScale, noise)])
  }

  /// What the decoder takes.
  static func toDecoder(_ latents: [Float], _ vae: Pipeline.VAE) -> [Float] {
    latents.map { $0 / vae.scalingFactor + vae.shiftFactor }
  }

  /// From the VAE's scale to the UNet's.
  static func fromEncoder(_ latents: [Float], _ vae: Pipeline.VAE) -> [Float] {
    latents.map { ($0 - vae.shiftFactor) * vae.scalingFactor }
  }

  /// A draw from a posterior: its means, then the logarithms of its variances.
  static func sample(posterior: [Float], noise: [Float]) -> [Float] {
    let half = posterior.count / 2
    return (0..<half).map { i in
      let log = min(max(posterior[half + i], -30), 20)
      return posterior[i] + Float(exp(Double(0.5 * log))) * noise[i]
    }
  }
}

/// The latents on their way through the rows of a run, with the history that the rows look back on.
struct Denoising {
  private(set) var latents: [Float]
  private var history: [[Float]] = []  // newest first

  init(_ latents: [Float]) { self.latents = latents }

  func scaled(_ row: StepRow) -> [Float] { Latents.weighted(latents.count, [(row.inputScale, latents)]) }

  /// Makes one row, with the UNet's guided output and, where the row's c is not 0, noise.
  mutating func advance(_ row: StepRow, output: [Float], noise: [Float]?) {
    history.insert(Latents.weighted(latents.count, [(row.p, latents), (row.q, output)]), at: 0)
    if history.count > StepTables.history { history.removeLast() }
    var terms: [(factor: Float, values: [Float]?)] = [(row.a, latents)]
    for (i, factor) in row.b.enumerated() { terms.append((factor, i < history.count ? history[i] : nil)) }
    latents = Latents.weighted(latents.count, terms + [(row.c, noise)])
  }
}
