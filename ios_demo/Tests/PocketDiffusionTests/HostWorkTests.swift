import Dispatch
import Foundation
import XCTest

@testable import PocketDiffusion

/// What the engine does beside the graphs, for one picture of 512x512 in 20 steps: tokens of two prompts, noise, samplers,
/// levels. It has to be under 2 % of the UNet's calls. POCKET_UNET_SECONDS says what a call of SD 1.5's UNet takes on a
/// thread of this machine (benchmarks/full_size_unet.py); 1 s, if it is not given, is less than any processor needs.
final class HostWorkTests: XCTestCase {
  func testItIsSmallBesideTheUNet() throws {
    let generator = try Generator(bundle: Given.emoji(), engine: Given.engine())
    let runs = try (0..<5).map { _ in try measure(generator) }
    let best = try XCTUnwrap(runs.min { $0.map(\.seconds).reduce(0, +) < $1.map(\.seconds).reduce(0, +) })
    let unet = 20 * (ProcessInfo.processInfo.environment["POCKET_UNET_SECONDS"].flatMap(Double.init) ?? 1)
    let total = best.map(\.seconds).reduce(0, +)
    for part in best { print("HOST \(part.name): \(Self.milliseconds(part.seconds))") }
    let first = runs[0].map(\.seconds).reduce(0, +)
    print("HOST in all \(Self.milliseconds(total)), the first time \(Self.milliseconds(first))")
    print("HOST \(String(format: "%.2f", 100 * total / unet)) % of 20 calls of a UNet, \(unet) s")
    XCTAssertLessThan(total, 0.02 * unet)
    XCTAssertLessThan(try XCTUnwrap(best.first { $0.name == "noise of 64x64x4" }).seconds, 0.005)
  }

  private func measure(_ generator: Generator) throws -> [(name: String, seconds: Double)] {
    var parts: [(name: String, seconds: Double)] = []
    func part<Result>(_ name: String, _ work: () throws -> Result) rethrows -> Result {
      let began = DispatchTime.now()
      let result = try work()
      parts.append((name, seconds(since: began)))
      return result
    }
    let prompt = String(repeating: "a photograph of an astronaut riding a horse, ", count: 8)
    _ = part("tokens of two prompts") { [prompt, "blurry"].map { generator.tokenizers[0].input($0) } }
    let size = 4 * 64 * 64
    let noise = try part("noise of 64x64x4") {
      var random = try TorchRandom(seed: "7")
      return random.normal(size)
    }
    let decoded = (0..<3 * 512 * 512).map { Float($0 % 4001) / 2000 - 1 }
    try part("20 steps") {
      let run = try generator.tables.run(generator.pipeline.steps.defaultSampler, steps: 20)
      var denoising = Denoising(Latents.first(run, noise: noise, image: nil))
      for row in run.rows {
        _ = Tensor(denoising.scaled(row), shape: [1, 4, 64, 64])
        let output = Latents.guide(negative: noise, positive: denoising.latents, guidance: 7.5)
        denoising.advance(row, output: output, noise: noise)
      }
    }
    let picture = part("levels of 512x512") { Picture(decoded: decoded, width: 512, height: 512) }
    _ = part("a PNG of 512x512") { PNG.write(picture, facts: ["prompt": prompt]) }
    return parts
  }

  private static func milliseconds(_ seconds: Double) -> String { String(format: "%.2f ms", seconds * 1000) }
}
