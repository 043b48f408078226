import Foundation
import PocketDiffusion
import XCTest

@testable import AppModels

/// The app with a UNet of several graphs, where the phone has no room for all of them.
@MainActor final class MemoryTests: XCTestCase {
  func testOneGraphAtATimeWhereAStepDoesNotFit() async throws {
    let app = try TestApp(self)
    let opened = try await open(app, left: 4 << 30)
    let usual = try XCTUnwrap(opened.peakBytes(hasPhoto: false, .stage))
    let least = try XCTUnwrap(opened.peakBytes(hasPhoto: false, .call))
    XCTAssertLessThan(least, usual)
    let first = try await draw(app)
    XCTAssertEqual(app.studio.memory(opened)?.key, .memory)
    XCTAssertEqual(first.notes, [])

    let other = try await open(app, left: usual - 1)
    XCTAssertEqual(
      app.studio.memory(other),
      Phrase(.memoryLess, .phrase(Numbers.bytes(least)), .phrase(Numbers.bytes(usual - 1))))
    let second = try await draw(app)
    XCTAssertEqual(second.notes, [Phrase(.oneByOne)])
    XCTAssertEqual(second.picture, first.picture)

    app.studio.settings.leastMemory = true
    XCTAssertEqual(app.studio.memory(other)?.key, .memory)
    let wished = try await draw(app)
    XCTAssertEqual(wished.notes, [], "the person asked for it")

    app.studio.settings.leastMemory = false
    let none = try await open(app, left: least - 1)
    XCTAssertEqual(app.studio.memory(none)?.key, .memoryShort)
    app.studio.draw()
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorMemory))
  }

  /// Starts the app on a phone with so much memory, with the bundle of a split UNet.
  private func open(_ app: TestApp, left: Int64) async throws -> Opened {
    app.phone.leftMemory = { left }
    app.restart()
    app.studio.pick(try app.splitBundle())
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    return try XCTUnwrap(app.studio.opened)
  }

  private func draw(_ app: TestApp) async throws -> Finished {
    app.studio.settings.prompt = "red apple"
    app.studio.settings.seed = "7"
    app.studio.settings.keepsSeed = true
    app.studio.settings.steps = 2
    app.studio.draw()
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    return try XCTUnwrap(app.studio.finished)
  }
}
