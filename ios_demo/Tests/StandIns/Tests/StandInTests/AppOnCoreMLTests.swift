import CoreML
import Foundation
import XCTest

@testable import AppModels
@testable import PocketDiffusion

/// The app's models with the Core ML runner itself, on an iPhone's bundle, by the stand-in for Core ML.
final class AppOnCoreMLTests: XCTestCase {
  /// Nothing is known of the bundle's units: the CPU draws until the self-test has passed.
  func testTheAppDrawsAndTestsOnEveryUnit() async throws {
    let support = try Given.scratch(self)
    try await Task { @MainActor in try await Self.drawAndTest(support) }.value
  }

  @MainActor private static func drawAndTest(_ support: URL) async throws {
    let iphone = try XCTUnwrap(
      Given.bundles().map { try ModelBundle(folder: $0, digests: Given.digests) }.first {
        $0.manifest.formatNames.contains("coreml")
      })
    let graphs = try AppleGraphs(iphone, exact: Given.emoji(), engine: Given.engine())
    StandIn.give { package, _ in try graphs.model(package) }
    let folders = AppFolders(shipped: nil, shared: nil, support: support)
    let studio = Studio(
      folders: folders, engines: [CoreMLEngine(compiled: folders.compiled, version: "17.0")],
      phone: .current(app: ProgramVersion(name: "tests", version: "1")), downloads: NoDownloads())
    studio.pick(iphone.folder)
    await studio.idle()
    XCTAssertNil(studio.problem)
    let opened = try XCTUnwrap(studio.opened)
    XCTAssertEqual(opened.units, ["cpu"])
    XCTAssertEqual(opened.unitNotes, [Phrase(.unitUntested, .phrase(Phrase(.unitAne)))])
    XCTAssertEqual(Set(opened.units(wished: nil).values), ["cpu"])
    studio.settings.prompt = "red apple"
    studio.settings.steps = 3
    func draw(_ unit: String?) async {
      studio.settings.unit = unit
      studio.draw()
      await studio.idle()
      XCTAssertNil(studio.problem)
      XCTAssertEqual(studio.finished?.picture.width, opened.pipeline.picture.width)
      XCTAssertEqual(studio.finished?.fallbacks.count, 0)
    }
    await draw(nil)
    XCTAssertEqual(studio.generator.map { Set($0.units.values) }, ["cpu"])
    studio.test()
    await studio.idle()
    XCTAssertNil(studio.problem)
    let tested = try XCTUnwrap(studio.tested)
    XCTAssertEqual(tested.report.graphs.count, 3 * opened.pipeline.graphs.count)
    XCTAssertTrue(tested.report.passed)
    XCTAssertEqual(Set(tested.report.drawing.map(\.unit)), ["cpu"])
    XCTAssertEqual(opened.units, ["cpu", "gpu", "ane"])
    XCTAssertTrue(opened.unitNotes.isEmpty)
    for unit in [nil] + opened.units {
      await draw(unit)
      XCTAssertEqual(studio.generator.map { Set($0.units.values) }, [unit ?? "ane"])
    }
  }
}

@MainActor private final class NoDownloads: DownloadSession {
  func load(_ address: URL, resume: Data?) -> AsyncStream<DownloadEvent> { AsyncStream { $0.finish() } }

  func running() async -> (address: URL, events: AsyncStream<DownloadEvent>)? { nil }

  func stop() {}
}
