import Foundation
import XCTest

@testable import AppModels
@testable import PocketDiffusion

/// The page 'Is it the same model?'.
@MainActor final class SameModelTests: XCTestCase {
  func testTheOriginalsPictureIsDrawnAndJudged() async throws {
    let app = try TestApp(self)
    try await app.open()
    app.studio.test()
    let work = try XCTUnwrap(app.studio.work)
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    XCTAssertEqual(work.done, work.total - 1, "the last part was told when it began")
    let tested = try XCTUnwrap(app.studio.tested)
    XCTAssertTrue(tested.report.passed)
    XCTAssertEqual(tested.verdict, Phrase(.verdictSame))
    XCTAssertEqual(tested.verdictText, Phrase(.verdictSameText))
    XCTAssertNil(tested.unusedUnits)
    XCTAssertEqual(tested.original?.width, tested.report.drawn?.width)
    XCTAssertGreaterThan(tested.report.graphs.count, 2)
    for result in tested.report.graphs {
      XCTAssertEqual(result.title.key, .graphOn)
      XCTAssertNotNil(result.time)
    }
    XCTAssertEqual(tested.vectors.key, .vectorsAll)
    XCTAssertEqual(tested.controls.map(\.kind), [.seed], "the one of a quick proof")
    XCTAssertEqual(tested.controls.first?.title, Phrase(.controlSeed))
    XCTAssertEqual(tested.comparison, Phrase(.controlsNearer))
    XCTAssertNoThrow(try JSONSerialization.jsonObject(with: Data(contentsOf: tested.file)))
  }

  func testWithoutTheProofThePhoneDrawsTheControls() async throws {
    let app = try TestApp(self)
    let folder = try app.copyBundle()
    let manifest = try ModelBundle(folder: folder).manifest
    for path in manifest.files.paths where manifest.files[path]?.role != .runtime {
      try FileManager.default.removeItem(at: folder.appendingPathComponent(path))
    }
    await app.studio.start()
    app.studio.test()
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    let tested = try XCTUnwrap(app.studio.tested)
    XCTAssertEqual(tested.controls.first?.title, Phrase(.controlOwnSeed))
    XCTAssertEqual(tested.controls.map(\.kind), [.seed, .step, .prompt])
    XCTAssertTrue(tested.controls.allSatisfy { $0.psnrDb < 60 }, "\(tested.controls)")
    XCTAssertEqual(tested.comparison, Phrase(.controlsOwnNearer))
  }

  func testAPhoneThatDrawsWronglyIsFound() async throws {
    let app = try TestApp(self)
    try await app.open()
    await app.studio.freeMemory()
    app.engine.adds = 0.05
    app.studio.test()
    await app.studio.idle()
    let tested = try XCTUnwrap(app.studio.tested)
    XCTAssertFalse(tested.report.passed)
    XCTAssertEqual(tested.verdict, Phrase(.verdictOther))
    XCTAssertEqual(tested.verdictText.key, .verdictOtherText)
    XCTAssertTrue(tested.report.graphs.contains { !$0.passed })
    XCTAssertNotEqual(tested.distance.key, .pictureEqual)
  }

  func testAUnitThatFailsIsSaidAndTheOthersGoOn() async throws {
    let app = try TestApp(self)
    try await app.open()
    app.engine.failsToRun = true
    app.studio.test()
    await app.studio.idle()
    let tested = try XCTUnwrap(app.studio.tested)
    XCTAssertTrue(tested.report.graphs.allSatisfy { $0.error != nil })
    XCTAssertEqual(tested.distance.key, .pictureNone)
    XCTAssertEqual(tested.vectors.key, .vectorsAll)
  }

  func testAUnitThatDrawsNothingIsToldBesideTheYes() async throws {
    let app = try TestApp(self)
    app.engine.unitThatFails = "gpu"
    try await app.open()
    app.studio.test()
    await app.studio.idle()
    let tested = try XCTUnwrap(app.studio.tested)
    XCTAssertEqual(tested.verdict, Phrase(.verdictSame))
    let names = ["text_encoder", "unet", "vae_decoder", "vae_encoder"].map { "\($0) (gpu)" }
    XCTAssertEqual(tested.unusedUnits, Phrase(.unitsUnused, .text(names.joined(separator: ", "))))
  }

  func testWithoutAPictureThereIsNoVerdict() async throws {
    let app = try TestApp(self)
    try await app.open()
    app.studio.test()
    await app.studio.idle()
    let whole = try XCTUnwrap(app.studio.tested)
    let report = DeviceReport(
      bundleID: "", runtimeID: "", device: whole.report.device, engine: whole.report.engine, format: "onnx",
      graphs: whole.report.graphs, vectors: whole.report.vectors, picture: nil, drawn: nil, pictureArithmetic: "float32"
    )
    let tested = Tested(report: report, original: nil, controls: [], file: whole.file)
    XCTAssertEqual(tested.verdict, Phrase(.verdictNone))
    XCTAssertEqual(tested.verdictText, Phrase(.verdictNoneText))
    XCTAssertNil(tested.decibels)
  }

  /// Where there is no floor, the dB stand alone.
  func testAVerdictWithoutAFloorSaysNone() async {
    XCTAssertEqual(Verdict(subject: "unet", psnrDb: 50, floorDb: nil).decibels, Numbers.decibels(50))
    XCTAssertEqual(Verdict(subject: "unet", psnrDb: 50, floorDb: 40).decibels.key, .separator)
  }

  func testATestIsCancelled() async throws {
    let app = try TestApp(self)
    try await app.open()
    app.studio.test()
    let work = try XCTUnwrap(app.studio.work)
    while work.done < 2 { try await Task.sleep(nanoseconds: 1_000_000) }
    app.studio.cancel()
    await app.studio.idle()
    XCTAssertNil(app.studio.tested)
    XCTAssertNil(app.studio.problem)
  }
}
