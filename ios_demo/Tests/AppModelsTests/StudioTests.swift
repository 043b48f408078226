import Foundation
import OrtRunner
import PocketDiffusion
import XCTest

@testable import AppModels

/// The app without its views: onnxruntime draws, on Linux.
@MainActor final class StudioTests: XCTestCase {
  func testDrawsWithABundleThatWasPicked() async throws {
    let app = try TestApp(self)
    app.studio.pick(try app.bundle())
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    let opened = try XCTUnwrap(app.studio.opened)
    XCTAssertEqual(opened.name, "emoji")
    app.studio.settings.prompt = "red apple"
    app.studio.settings.seed = "7"
    app.studio.settings.steps = 4
    var previews = 0
    let watching = Task {
      while !Task.isCancelled {
        if app.studio.work?.preview != nil { previews += 1 }
        try? await Task.sleep(nanoseconds: 1_000_000)
      }
    }
    app.studio.draw()
    XCTAssertEqual(app.studio.work?.kind, .draw)
    XCTAssertFalse(app.studio.canDraw)
    await app.studio.idle()
    watching.cancel()
    XCTAssertNil(app.studio.problem)
    XCTAssertGreaterThan(previews, 0)
    let finished = try XCTUnwrap(app.studio.finished)
    XCTAssertEqual(finished.picture.width, opened.pipeline.picture.width)
    XCTAssertEqual(finished.facts["seed"], "7")
    XCTAssertNotEqual(app.studio.settings.seed, "7", "the next picture has another seed")
    XCTAssertNotNil(finished.made)
    let bytes = Array(try Data(contentsOf: finished.file))
    XCTAssertEqual(try PNG.read(bytes, place: "picture"), finished.picture)
    XCTAssertEqual(try PNG.readFacts(bytes, place: "picture")["prompt"], "red apple")
  }
}
