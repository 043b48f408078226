import Foundation
import PocketDiffusion
import XCTest

@testable import AppModels

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
    XCTAssertEqual(tested.original?.width, tested.report.drawn?.width)
    XCTAssertGreaterThan(tested.report.graphs.count, 2)
    for result in tested.report.graphs {
      XCTAssertEqual(result.title.key, .graphOn)
      XCTAssertNotNil(result.time)
    }
    XCTAssertEqual(tested.vectors.key, .vectorsAll)
    XCTAssertEqual(tested.controls.map(\.kind), [.seed, .step, .prompt], "they are in the proof")
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
