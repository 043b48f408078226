import XCTest

@testable import PocketDiffusion

final class StepsTests: XCTestCase {
  private func row(a: Float, b: [Float], p: Float = 0, c: Float = 0) -> StepRow {
    StepRow(timestep: 500, inputScale: 1, p: p, q: 1, a: a, b: b, c: c, signalScale: 1, noiseScale: 1)
  }

  func testARowIsAdvancedInTheOrderThatIsWritten() {
    var denoising = Denoising([4])
    denoising.advance(row(a: 0.5, b: [2, 0, 0, 0, 0]), output: [3], noise: nil)
    XCTAssertEqual(denoising.latents, [8])
    denoising.advance(row(a: 0, b: [0, 1, 0, 0, 0]), output: [9], noise: nil)
    XCTAssertEqual(denoising.latents, [3])  // the output before
  }

  func testAFactorOfZeroLeavesInfinityOut() {
    var denoising = Denoising([.infinity])
    denoising.advance(row(a: 0, b: [1, 0, 0, 0, 0]), output: [1], noise: nil)
    XCTAssertEqual(denoising.latents, [1])
  }

  private let json = """
    {"file": "steps/tables.bin", "most_steps": 3, "default_sampler": "one", "samplers": {"one": {
    "rows": [1, 2, 0], "init_noise_sigma": [1, 2, 3], "columns": {"timestep": 0, "b0": 12},
    "constants": {"input_scale": 0, "p": 0, "q": 0, "a": 0, "b1": 0, "b2": 0, "b3": 0, "b4": 0, "c": 0,
    "signal_scale": 0, "noise_scale": 0}, "restarts": [{"columns": {}, "constants": {"b0": 7}}]}}}
    """

  func testRestartsTakeTheirOwnColumns() throws {
    let index = try BundleJSON.decode(StepIndex.self, from: Array(json.utf8), path: "test")
    let file = Tensor([10, 20, 21, 1, 2, 3] as [Float], shape: [6]).bytes  // timesteps, then b0
    let tables = StepTables(index: index, file: file)
    let run = try tables.run("one", steps: 2)
    XCTAssertEqual(run.rows.map { $0.timestep }, [20, 21])
    XCTAssertEqual(run.rows.map { $0.b[0] }, [7, 3])
    XCTAssertEqual(run.initNoiseSigma, 2)
    XCTAssertEqual(try tables.run("one", steps: 2, start: 1).rows.map { $0.b[0] }, [7])
    for steps in [-1, 0, 3, 4] {
      assertThrows(try tables.run("one", steps: steps)) { error in
        if case .refusal(let what) = error { what.contains("\(steps) steps") } else { false }
      }
    }
    assertThrows(try tables.run("two", steps: 1)) { $0 == .refusal(what: "the sampler two") }
    assertThrows(try StepTables(index: index, file: Array(file.dropLast())).run("one", steps: 2)) { error in
      if case .contradiction("steps/tables.bin", let why) = error { why.contains("b0") } else { false }
    }
  }
}
