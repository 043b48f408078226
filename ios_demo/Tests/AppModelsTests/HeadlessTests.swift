import Foundation
import PocketDiffusion
import XCTest

@testable import AppModels

/// Launch arguments.
@MainActor final class HeadlessTests: XCTestCase {
  func testArgumentsAreRead() async throws {
    let told = try LaunchArguments([
      "-NSDocumentRevisionsDebugMode", "YES", "--draw", "--prompt", "red apple", "--seed", "7", "--steps", "20",
      "--guidance", "5", "--sampler", "euler", "--negative-prompt", "", "--unit", "cpu", "--bundle", "emoji", "--out",
      "apple", "--least-memory",
    ])
    var wish = Wish(prompt: "red apple", seed: "7")
    wish.steps = 20
    wish.guidance = 5
    wish.sampler = "euler"
    wish.negativePrompt = ""
    wish.unit = "cpu"
    wish.leastMemory = true
    XCTAssertEqual(told.task, .draw(wish))
    XCTAssertEqual(told.bundle, "emoji")
    XCTAssertEqual(told.out, "apple")
    XCTAssertEqual(try LaunchArguments(["--self-test"]).task, .selfTest)
    let bad = [
      [], ["--draw"], ["--draw", "--self-test", "--prompt", "x"], ["--draw", "--prompt"],
      ["--self-test", "--seed", "1"],
      ["--draw", "--prompt", "x", "--steps", "many"], ["--draw", "--prompt", "x", "--colour", "red"], ["draw"],
      ["--self-test", "--out", "../x"],
    ]
    for arguments in bad { XCTAssertThrowsError(try LaunchArguments(arguments), "\(arguments)") }
    XCTAssertFalse(Headless.isWanted(["-NSDoubleLocalizedStrings", "YES"]))
    XCTAssertTrue(Headless.isWanted(["--self-test"]))
  }

  func testDrawsAndWritesJSON() async throws {
    let app = try TestApp(self)
    try app.copyBundle()
    let (code, said) = await run(
      app, ["--draw", "--prompt", "red apple", "--seed", "7", "--steps", "3", "--out", "apple"])
    XCTAssertEqual(code, 0, said)
    let result = try XCTUnwrap(JSONSerialization.jsonObject(with: Data(said.utf8)) as? [String: Any])
    XCTAssertEqual(result["picture"] as? String, "apple.png")
    XCTAssertEqual((result["facts"] as? [String: String])?["steps"], "3")
    let folder = try XCTUnwrap(app.folders.shared)
    XCTAssertEqual(try String(contentsOf: folder.appendingPathComponent("apple.json"), encoding: .utf8), said)
    let png = Array(try Data(contentsOf: folder.appendingPathComponent("apple.png")))
    XCTAssertEqual(try PNG.read(png, place: "apple.png"), app.studio.finished?.picture)
  }

  func testTestsAndWritesTheReport() async throws {
    let app = try TestApp(self)
    try app.copyBundle()
    let (code, said) = await run(app, ["--self-test", "--bundle", "copy"])
    XCTAssertEqual(code, 0, said)
    let result = try XCTUnwrap(JSONSerialization.jsonObject(with: Data(said.utf8)) as? [String: Any])
    XCTAssertEqual(result["is_same_model"] as? Bool, true)
    XCTAssertEqual((result["controls_db"] as? [String: Any])?.keys.sorted(), ["another seed"])
    let report = try Data(contentsOf: XCTUnwrap(app.folders.shared).appendingPathComponent("result.report.json"))
    XCTAssertNoThrow(try JSONSerialization.jsonObject(with: report))
  }

  func testFailuresEndWithOne() async throws {
    let app = try TestApp(self)
    let (empty, nothing) = await run(app, ["--self-test"])
    XCTAssertEqual(empty, 1)
    XCTAssertTrue(nothing.contains("there is no bundle on this phone"), nothing)
    try app.copyBundle()
    let (code, said) = await run(app, ["--draw", "--prompt", "x", "--sampler", "best"])
    XCTAssertEqual(code, 1)
    XCTAssertTrue(said.contains("the sampler best"), said)
    let (other, unknown) = await run(app, ["--self-test", "--bundle", "sdxl"])
    XCTAssertEqual(other, 1)
    XCTAssertTrue(unknown.contains("no bundle sdxl"), unknown)
    let (bad, why) = await run(app, ["--draw"])
    XCTAssertEqual(bad, 1)
    XCTAssertTrue(why.contains("--draw needs --prompt"), why)
  }

  private func run(_ app: TestApp, _ arguments: [String]) async -> (Int32, String) {
    var said = ""
    let folder = app.folders.shared ?? app.folders.support
    let code = await Headless(studio: app.studio, folder: folder).run(arguments) { said += $0 }
    return (code, said)
  }
}
