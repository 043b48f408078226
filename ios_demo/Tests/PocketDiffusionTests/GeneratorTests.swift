import Foundation
import XCTest

@testable import PocketDiffusion

/// Drawing with the built-in model, and what a drawing does when something goes wrong in its midst.
final class GeneratorTests: XCTestCase {
  private let apple = Request(prompt: "red apple", seed: "1", steps: 10, guidance: 7.5)

  func testHowLongGraphsStayOpenChangesNoPicture() throws {
    let bundle = try Given.emoji()
    let pictures = try Residency.allCases.map { residency in
      let engine = ChangedEngine(try Given.engine())
      let generator = try Generator(bundle: bundle, engine: engine, residency: residency)
      let picture = try generator.drawNow(apple).picture
      XCTAssertEqual(engine.mostOpen, residency == .keep ? 3 : 1)
      XCTAssertEqual(engine.open.count, residency == .keep ? 3 : 0)
      return picture
    }
    for picture in pictures { XCTAssertEqual(picture, pictures[0]) }
  }

  func testTheSequenceTellsOfEachStep() async throws {
    let generator = try Generator(bundle: Given.emoji(), engine: Given.engine())
    var (stages, rows, opened): ([String], [Int], [String]) = ([], [], [])
    var previews: [Picture] = []
    var drawn: Drawn?
    for try await event in generator.draw(apple) {
      switch event {
      case .stage(let name): stages.append(name)
      case .opening(let graph, let unit): opened.append("\(graph) \(unit)")
      case .step(let step):
        rows.append(step.row)
        XCTAssertEqual(step.rows, 10)
        XCTAssertGreaterThan(step.seconds, 0)
        if let preview = step.preview() { previews.append(preview) }
      case .finished(let result): drawn = result
      }
    }
    XCTAssertEqual(stages, ["encode_prompt", "denoise", "decode"])
    XCTAssertEqual(opened, ["text_encoder cpu", "unet cpu", "vae_decoder cpu"])
    XCTAssertEqual(rows, Array(1...10))
    let result = try XCTUnwrap(drawn)
    XCTAssertEqual(result.facts["prompt"], "red apple")
    XCTAssertEqual(result.facts["guidance"], "7.5")
    let preview = try XCTUnwrap(previews.last)
    let small = ImageToImage.resize(result.picture, width: preview.width, height: preview.height)
    XCTAssertGreaterThan(Compare.psnr(small, preview), 12)
    XCTAssertEqual(previews.count, 10)
    await generator.close()
  }

  /// A cancellation ends the call that is on its way, and the next drawing is whole.
  func testADrawingIsCancelledInAStep() async throws {
    let generator = try Generator(bundle: Given.emoji(), engine: Given.engine())
    let whole = try await draw(generator, apple).picture
    let cancellation = Cancellation()
    var steps = 0
    do {
      for try await event in generator.draw(
        Request(prompt: "red apple", seed: "1", steps: 50), cancellation: cancellation)
      {
        guard case .step(let step) = event else { continue }
        steps += 1
        if step.row == 3 { cancellation.cancel() }
      }
      XCTFail("it was not cancelled")
    } catch {
      XCTAssertEqual(error as? EngineError, .cancelled)
    }
    XCTAssertLessThan(steps, 6)
    do {
      _ = try generator.drawNow(apple, cancellation: cancellation)
      XCTFail("it was not cancelled")
    } catch {
      XCTAssertEqual(error as? EngineError, .cancelled)
    }
    let again = try await draw(generator, apple).picture
    XCTAssertEqual(again, whole)
  }

  /// A call itself ends early: onnxruntime gives an error where it is told to stop in the midst.
  func testACallOfAGraphIsCancelled() throws {
    let bundle = try Given.emoji()
    let unet = try bundle.pipeline(format: "onnx").graph("unet")
    let runner = try Given.engine().open(unet, of: bundle, on: "cpu")
    let inputs = Dictionary(
      uniqueKeysWithValues: unet.spec.inputs.map { ($0.name, Tensor(zeros: $0.resolved(), dtype: $0.dtype)) })
    func cancelled() throws -> Bool {
      let cancellation = Cancellation()
      let began = DispatchSemaphore(value: 0)
      Thread.detachNewThread {
        began.wait()
        usleep(1000)
        cancellation.cancel()
      }
      began.signal()
      do {
        _ = try runner.run(inputs, cancellation: cancellation)
        return false  // the other thread came too late
      } catch EngineError.cancelled {
        return true
      }
    }
    XCTAssertTrue(try (0..<20).contains { _ in try cancelled() })
    _ = try runner.run(inputs, cancellation: Cancellation())
  }

  /// A task that stops listening ends the drawing.
  func testATaskThatIsCancelledEndsTheDrawing() async throws {
    let calls = Counter()
    let engine = ChangedEngine(try Given.engine(), before: { _ in calls.next() })
    let generator = try Generator(bundle: Given.emoji(), engine: engine)
    let started = expectation(description: "the first step")
    let task = Task {
      for try await event in generator.draw(Request(prompt: "red apple", seed: "1", steps: 50)) {
        if case .step(let step) = event, step.row == 1 { started.fulfill() }
      }
    }
    await fulfillment(of: [started], timeout: 20)
    task.cancel()
    await generator.close()  // waits for the drawing's end
    XCTAssertLessThan(calls.value, 40)
    XCTAssertTrue(engine.open.isEmpty)
  }

  /// NaN in the midst of a run ends it with the graph's name, and closes the graphs.
  func testNaNInTheMidstOfARunIsToldByName() throws {
    let calls = Counter()
    let engine = ChangedEngine(
      try Given.engine(),
      after: { graph, made in
        guard graph == "unet", calls.next() == 4 else { return made }
        return made.mapValues { Tensor([Float](repeating: .nan, count: $0.count), shape: $0.shape) }
      })
    let generator = try Generator(bundle: Given.emoji(), engine: engine, residency: .stage)
    assertThrows(try generator.drawNow(apple)) { error in
      if case .notFinite("unet", "out_sample") = error { true } else { false }
    }
    XCTAssertTrue(engine.open.isEmpty)
    _ = try generator.drawNow(apple)
  }

  func testRequestsThatCannotBeDrawnAreRefused() throws {
    let generator = try Generator(bundle: Given.emoji(), engine: Given.engine())
    let photo = Picture(width: 8, height: 8, rgb: [UInt8](repeating: 0, count: 192))
    for request in [
      Request(prompt: "x", seed: "one"), Request(prompt: "x", seed: "1", guidance: .nan),
      Request(prompt: "x", seed: "1", steps: 4, picture: photo, strength: 0.1),
    ] {
      assertThrows(try generator.drawNow(request)) { error in
        if case .badRequest = error { true } else { false }
      }
    }
    assertThrows(try generator.drawNow(Request(prompt: "x", seed: "1", steps: 51))) { error in
      if case .refusal(let what) = error { what.contains("51 steps") } else { false }
    }
    assertThrows(try generator.drawNow(Request(prompt: "x", seed: "1", sampler: "heun"))) {
      $0 == .refusal(what: "the sampler heun")
    }
  }

  func testWhatDoesNotFitIsTold() throws {
    let generator = try Generator(bundle: Given.emoji(), engine: Given.engine())
    let request = Request(
      prompt: String(repeating: "cat ", count: 80) + "END", negativePrompt: String(repeating: "dog ", count: 76),
      seed: "1", steps: 1)
    let drawn = try generator.drawNow(request)
    XCTAssertTrue(drawn.cut.hasSuffix("END"))
    XCTAssertEqual(drawn.negativeCut, "dog ")
  }

  func testAUnitThatCannotGivesWayToTheCPUAndSaysSo() throws {
    let folder = try Forgery.copy(Given.kit().appendingPathComponent("pndm"), into: Given.scratch(self))
    try Forgery.change(folder, "pipeline/onnx.json") {
      setting(&$0, ["graphs", "unet", "units", "npu"], to: ["status": "bad", "evidence": "published", "note": "grey"])
    }
    let engine = ChangedEngine(try Given.engine(), units: ["cpu", "npu"])
    let generator = try Generator(
      bundle: ModelBundle(folder: folder), engine: engine, wishedUnit: { $0.name == "vae_decoder" ? "gpu" : "npu" })
    let drawn = try generator.drawNow(Request(prompt: "x", seed: "1", steps: 1))
    XCTAssertEqual(engine.open, ["text_encoder": "npu", "unet": "cpu", "vae_decoder": "cpu"])
    XCTAssertEqual(
      drawn.fallbacks,
      [
        "unet": .unitKnownBad(graph: "unet", unit: "npu", note: "grey"),
        "vae_decoder": .unitNotHere(graph: "vae_decoder", unit: "gpu", engine: "onnxruntime"),
      ])
  }

  func testAGraphThatFailedOnceIsOpenedAnew() throws {
    let calls = Counter()
    let engine = ChangedEngine(
      try Given.engine(),
      before: { graph in
        if graph == "unet", calls.next() == 2 { throw EngineError.engineFailure(graph: graph, said: "once") }
      })
    let generator = try Generator(bundle: Given.emoji(), engine: engine)
    assertThrows(try generator.drawNow(apple)) { $0 == .engineFailure(graph: "unet", said: "once") }
    XCTAssertTrue(engine.open.isEmpty, "the graph that failed does not stay open")
    _ = try generator.drawNow(apple)
    XCTAssertEqual(engine.open.count, 3)
  }

  func testAUnitThatFailedOnceGetsAnotherChance() async throws {
    let engine = ChangedEngine(FirstOpenFails(inner: try Given.engine()), units: ["cpu", "gpu"])
    let generator = try Generator(
      bundle: Given.emoji(), engine: engine, wishedUnit: { $0.name == "vae_decoder" ? "npu" : "gpu" })
    let refused = EngineError.engineFailure(graph: "text_encoder", said: "not in the background")
    let notHere = EngineError.unitNotHere(graph: "vae_decoder", unit: "npu", engine: "onnxruntime")
    let first = try generator.drawNow(apple)
    XCTAssertEqual(first.fallbacks, ["text_encoder": refused, "vae_decoder": notHere])
    await generator.close()
    let second = try generator.drawNow(apple)
    XCTAssertEqual(second.fallbacks, ["vae_decoder": notHere])
    XCTAssertEqual(engine.open, ["text_encoder": "gpu", "unet": "gpu", "vae_decoder": "cpu"])
  }

  func testTooLittleMemoryIsToldBeforeAnythingIsOpened() throws {
    let bundle = try Given.emoji()
    let engine = ChangedEngine(try Given.engine())
    let estimate = try MemoryEstimate(Generator(bundle: bundle, engine: engine), hasPicture: false)
    let peaks = try Residency.allCases.map { try XCTUnwrap(estimate.peak($0)) }
    XCTAssertEqual(peaks, peaks.sorted(by: >))
    XCTAssertGreaterThan(peaks[0], peaks[2])
    for (left, open) in [(peaks[0], 3), (peaks[0] - 1, 0)] {
      let generator = try Generator(bundle: bundle, engine: engine, availableMemory: { left })
      _ = try generator.drawNow(apple)
      XCTAssertEqual(engine.open.count, open)  // fewer graphs are kept where not all fit
      if open == 3 { _ = try generator.drawNow(apple) }  // those that are open are not counted twice
    }
    let generator = try Generator(bundle: bundle, engine: engine, availableMemory: { peaks[2] - 1 })
    assertThrows(try generator.drawNow(apple)) {
      $0 == .notEnoughMemory(needsBytes: peaks[2], leftBytes: peaks[2] - 1)
    }
    XCTAssertTrue(engine.open.isEmpty)
  }

  /// What the drawing before left open is closed where its memory is missing, and the next drawing is made.
  func testGraphsThatAreOpenGiveWayToTheNextDrawing() throws {
    let bundle = try Given.emoji()
    let engine = ChangedEngine(try Given.engine())
    let estimate = try MemoryEstimate(Generator(bundle: bundle, engine: engine), hasPicture: false)
    let (all, least) = (try XCTUnwrap(estimate.peak(.keep)), try XCTUnwrap(estimate.peak(.call)))
    let asked = Counter()
    let generator = try Generator(
      bundle: bundle, engine: engine,
      availableMemory: {
        guard engine.open.isEmpty else { return 1 << 20 }
        return asked.next() < 3 ? all : least
      })
    let first = try generator.drawNow(apple).picture
    XCTAssertEqual(engine.open.count, 3)
    XCTAssertEqual(try generator.drawNow(apple).picture, first)
    XCTAssertEqual(engine.open.count, 3, "all fit once they were closed")
    XCTAssertEqual(try generator.drawNow(apple).picture, first)
    XCTAssertEqual(engine.open.count, 0, "there is less than before, and fewer are kept")
  }

  private func draw(_ generator: Generator, _ request: Request) async throws -> Drawn {
    var drawn: Drawn?
    for try await event in generator.draw(request) {
      if case .finished(let result) = event { drawn = result }
    }
    return try XCTUnwrap(drawn)
  }
}

/// An engine that refuses the first graph that is opened, and then none.
private struct FirstOpenFails: GraphEngine {
  let inner: any GraphEngine
  let opened = Counter()

  var name: String { inner.name }
  var version: String { inner.version }
  var format: String { inner.format }
  var units: [String] { inner.units }

  func arithmetic(of graph: PipelineGraph, on unit: String) -> String { inner.arithmetic(of: graph, on: unit) }

  func open(_ graph: PipelineGraph, of bundle: ModelBundle, on unit: String) throws -> any GraphRunner {
    if opened.next() == 1 { throw EngineError.engineFailure(graph: graph.name, said: "not in the background") }
    return try inner.open(graph, of: bundle, on: unit)
  }
}
