import Foundation
import XCTest

@testable import PocketDiffusion

/// tests/golden: the vectors that the Python, Kotlin and Swift engines must all meet.
final class GoldenTests: XCTestCase {
  private struct Noise: Decodable {
    struct Draw: Decodable {
      let shape: [Int]
      let at: [Int]
      let values: [Float]
    }

    struct Case: Decodable {
      let seed: String
      let draws: [Draw]
    }

    let tolerance: Float
    let cases: [Case]
  }

  func testNoiseIsTorchs() throws {
    let golden = try Given.golden(Noise.self, "noise.json")
    XCTAssertGreaterThanOrEqual(golden.cases.count, 30)
    for one in golden.cases {
      var random = try TorchRandom(seed: one.seed)
      for (number, draw) in one.draws.enumerated() {
        let values = random.normal(draw.shape.reduce(1, *))
        for (at, expected) in zip(draw.at, draw.values) {
          XCTAssertEqual(values[at], expected, accuracy: golden.tolerance, "seed \(one.seed), draw \(number), \(at)")
        }
      }
    }
  }

  func testTheEnginesWordsArePublished() throws {
    var random = try TorchRandom(seed: "5489")
    XCTAssertEqual(random.word(), 3_499_211_612)
    for _ in 0..<9998 { _ = random.word() }
    XCTAssertEqual(random.word(), 4_123_659_995)
  }

  func testSeedsHave64Bits() throws {
    var (negative, positive) = (try TorchRandom(seed: "-1"), try TorchRandom(seed: "18446744073709551615"))
    XCTAssertEqual(negative.normal(3), positive.normal(3))
    for seed in ["18446744073709551616", "-9223372036854775809", "1.5", "", "seven", " 1", "+1"] {
      assertThrows(try TorchRandom(seed: seed)) { error in
        if case .badRequest(let why) = error { why.hasSuffix("and not \(seed).") } else { false }
      }
    }
  }

  private struct Prompts: Decodable {
    struct Case: Decodable {
      let padId: Int32
      let prompt: String
      let ids: [Int32]
      let cut: String
    }

    let maxLength: Int
    let cases: [Case]
  }

  func testPromptsAreThoseOfTransformers() throws {
    let golden = try Given.golden(Prompts.self, "tokenizer.json")
    let bundle = try Given.emoji()
    let files = try XCTUnwrap(bundle.pipeline(format: "onnx").tokenizers.first)
    let byPad = Dictionary(grouping: golden.cases, by: \.padId)
    XCTAssertEqual(byPad.count, 2)
    for (pad, cases) in byPad {
      XCTAssertGreaterThanOrEqual(cases.count, 200)
      let marks: [(Int32, String)] =
        [(49406, "<|startoftext|>"), (49407, "<|endoftext|>")] + (pad == 0 ? [(0, "!")] : [])
      let added = marks.map { id, text in
        #"{"text": "\#(text)", "id": \#(id), "normalized": false, "lstrip": false, "rstrip": false, "single_word": false}"#
      }
      let index = try TokenizerIndex(
        json: """
          {"kind": "clip", "vocab": "\(files.vocab)", "merges": "\(files.merges)", "characters": "\(files.characters)",
          "max_length": \(golden.maxLength), "bos_id": 49406, "eos_id": 49407, "pad_id": \(pad), "unk_id": null,
          "added_tokens": [\(added.joined(separator: ", "))]}
          """)
      let tokenizer = try Tokenizer(index: index, bundle: bundle)
      for one in cases {
        let tokens = tokenizer.input(one.prompt)
        let padding = [Int32](repeating: pad, count: golden.maxLength - one.ids.count)
        XCTAssertEqual(tokens.ids, one.ids + padding, one.prompt)
        XCTAssertEqual(tokens.cut, one.cut, one.prompt)
      }
    }
  }

  private struct Runs: Decodable {
    struct Table: Decodable {
      let start: Int
      let initNoiseSigma: Float
      let signalScale: Float
      let noiseScale: Float
      let timestep: [Float]
      let inputScale: [Float]
      let p: [Float]
      let q: [Float]
      let a: [Float]
      let b: [[Float]]
      let c: [Float]
    }

    struct Row: Decodable {
      let timestep: Float
      let scaled: [Float]
      let output: [Float]
      let fresh: [Float]?
      let latents: [Float]
    }

    struct Case: Decodable {
      let table: Table
      let seed: String
      let shape: [Int]
      let noise: [Float]
      let image: [Float]?
      let first: [Float]
      let rows: [Row]
    }

    let tolerance: Float
    let cases: [Case]
  }

  func testRunsAreThoseOfDiffusers() throws {
    let golden = try Given.golden(Runs.self, "steps.json")
    XCTAssertGreaterThanOrEqual(golden.cases.count, 8)
    for (number, one) in golden.cases.enumerated() {
      func near(_ made: [Float], _ wanted: [Float], _ what: String) {
        let mean = wanted.reduce(0, +) / Float(wanted.count)
        let deviation = (wanted.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Float(wanted.count)).squareRoot()
        let worst = zip(made, wanted).map { abs($0 - $1) }.max() ?? .infinity
        XCTAssertLessThanOrEqual(worst, golden.tolerance * deviation, "run \(number), \(what)")
        XCTAssertEqual(made.count, wanted.count)
      }
      let table = one.table
      let rows = one.rows.indices.map { r in
        StepRow(
          timestep: table.timestep[r], inputScale: table.inputScale[r], p: table.p[r], q: table.q[r], a: table.a[r],
          b: table.b[r], c: table.c[r], signalScale: table.signalScale, noiseScale: table.noiseScale)
      }
      var random = try TorchRandom(seed: one.seed)
      let noise = random.normal(one.shape.reduce(1, *))
      near(noise, one.noise, "noise")
      let run = StepRun(rows: rows, initNoiseSigma: table.initNoiseSigma)
      var denoising = Denoising(Latents.first(run, noise: noise, image: table.start == 0 ? nil : one.image))
      near(denoising.latents, one.first, "first")
      for (row, told) in zip(run.rows, one.rows) {
        XCTAssertEqual(row.timestep, told.timestep)
        near(denoising.scaled(row), told.scaled, "scaled")
        let fresh = row.drawsNoise ? random.normal(noise.count) : nil
        if let fresh { near(fresh, told.fresh ?? [], "fresh noise") }
        denoising.advance(row, output: told.output, noise: fresh)
        near(denoising.latents, told.latents, "latents")
      }
    }
  }
}

extension TokenizerIndex {
  init(json: String) throws {
    self = try BundleJSON.decode(TokenizerIndex.self, from: Array(json.utf8), path: "test")
  }
}
