import Foundation
import XCTest

@testable import PocketDiffusion

/// The built-in model with a UNet of several graphs: what it draws, and how many of them are open.
final class SplitTests: XCTestCase {
  private static let floor = 60.0
  private static let steps = 4

  private func apple(oneBatch: Bool = true) -> Request {
    Request(prompt: "red apple", seed: "1", steps: Self.steps, guidance: 7.5, oneBatch: oneBatch)
  }

  private func draw(_ bundle: ModelBundle, _ request: Request) throws -> Picture {
    try Generator(bundle: bundle, engine: Given.engine()).drawNow(request).picture
  }

  private func parts(_ bundle: ModelBundle) throws -> [String] {
    let names = try bundle.pipeline(format: "onnx").graphs.keys.filter { $0.hasPrefix("unet") }.sorted()
    XCTAssertGreaterThan(names.count, 1)
    return names
  }

  func testItDrawsWhatTheWholeModelDraws() throws {
    let (whole, split) = (try Given.emoji(), try Given.split())
    for oneBatch in [true, false] {
      let request = apple(oneBatch: oneBatch)
      let db = Compare.psnr(try draw(whole, request), try draw(split, request))
      print("SPLIT \(try parts(split).count) graphs, both halves in one call: \(oneBatch), \(db) dB")
      XCTAssertGreaterThanOrEqual(db, Self.floor)
    }
  }

  func testOneGraphIsOpenAtEachTimeAndThePictureIsTheSame() throws {
    let bundle = try Given.split()
    let parts = try parts(bundle)
    let most: [Residency: Int] = [.keep: parts.count + 2, .stage: parts.count, .call: 1]
    for oneBatch in [true, false] {
      let pictures = try Residency.allCases.map { residency in
        let engine = ChangedEngine(try Given.engine())
        let generator = try Generator(bundle: bundle, engine: engine, residency: residency, availableMemory: { nil })
        let drawn = try generator.drawNow(apple(oneBatch: oneBatch))
        let unets = (0..<(residency == .call ? Self.steps : 1)).flatMap { _ in parts }
        XCTAssertEqual(engine.opened, ["text_encoder"] + unets + ["vae_decoder"])
        XCTAssertEqual(engine.mostOpen, most[residency])
        XCTAssertEqual(engine.open.count, residency == .keep ? parts.count + 2 : 0)
        XCTAssertEqual(drawn.residency, residency)
        return drawn.picture
      }
      for picture in pictures { XCTAssertEqual(picture, pictures[0]) }
    }
  }

  func testWhatFailsInAStepLeavesNoGraphOpen() throws {
    let bundle = try Given.split()
    let second = try parts(bundle)[1]
    let calls = Counter()
    let engine = ChangedEngine(try Given.engine()) { name in
      if name == second, calls.next() == 2 { throw EngineError.engineFailure(graph: name, said: "no room") }
    }
    let generator = try Generator(bundle: bundle, engine: engine, residency: .call)
    assertThrows(try generator.drawNow(apple())) { $0 == .engineFailure(graph: second, said: "no room") }
    XCTAssertTrue(engine.open.isEmpty)
    XCTAssertEqual(try generator.drawNow(apple()).picture, try draw(bundle, apple()))
    XCTAssertEqual(engine.mostOpen, 1)
  }

  /// By the rule of docs/BUNDLE.md, with numbers of bytes that tell each of its terms; and what is chosen by them.
  func testTheMemoryIsThatOfTheGraphsThatAreOpen() throws {
    let folder = try Forgery.copy(Given.split().folder, into: Given.scratch(self))
    let names = ["weights_bytes", "activations_bytes", "loading_bytes"]
    var counted = ["text_encoder": [10, 1, 20], "vae_decoder": [5, 100, 6]]
    for (n, part) in try parts(Given.split()).enumerated() { counted[part] = [50 + n, 7, 200 - 40 * n] }
    let keeping = ["text_encoder", try parts(Given.split())[1]]
    try Forgery.change(folder, "pipeline/onnx.json") { fields in
      for (graph, numbers) in counted {
        for (name, number) in zip(names, numbers) {
          setting(&fields, ["graphs", graph, "memory", name], to: number * 1_000_000)
        }
        setting(&fields, ["graphs", graph, "memory", "keeps_activations"], to: keeping.contains(graph))
      }
    }
    let bundle = try ModelBundle(folder: folder, digests: Given.digests)
    let engine = ChangedEngine(try Given.engine())
    let estimate = try MemoryEstimate(Generator(bundle: bundle, engine: engine), hasPicture: false)
    let expected = [
      10 + 1 + 50 + 51 + 7 + 52 + 5 + 100,  // all, in the last stage
      50 + 51 + 120,  // the third graph of the step is loaded beside the others
      200,  // the first graph of the step is loaded
    ]
    let peaks = expected.map { Int64(Double($0 * 1_000_000) * 1.1) + 64 << 20 }
    XCTAssertEqual(Residency.allCases.map { estimate.peak($0) }, peaks)
    for (left, residency) in [(peaks[0], Residency.keep), (peaks[0] - 1, .stage), (peaks[1] - 1, .call)] {
      let generator = try Generator(bundle: bundle, engine: engine, availableMemory: { left })
      XCTAssertEqual(try generator.drawNow(apple()).residency, residency)
    }
    let generator = try Generator(bundle: bundle, engine: engine, availableMemory: { peaks[2] - 1 })
    assertThrows(try generator.drawNow(apple())) {
      $0 == .notEnoughMemory(needsBytes: peaks[2], leftBytes: peaks[2] - 1)
    }
  }
}
