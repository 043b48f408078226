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
    let iphone = try iphone()
    let graphs = try AppleGraphs(iphone, exact: Given.emoji(), engine: Given.engine())
    StandIn.give { package, _ in try graphs.model(package) }
    let folders = AppFolders(
      shipped: nil, shared: nil, support: support, caches: support.appendingPathComponent("caches"))
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

  func testCompiledModelsGoWithTheirBundleAndWithTheSystem() async throws {
    let root = try Given.scratch(self)
    try await Task { @MainActor in try await Self.compileAndDelete(root) }.value
  }

  /// Two bundles of the same files share what was compiled, so it goes with the last of them.
  @MainActor private static func compileAndDelete(_ root: URL) async throws {
    let iphone = try iphone()
    let graphs = try AppleGraphs(iphone, exact: Given.emoji(), engine: Given.engine())
    StandIn.give { package, _ in try graphs.model(package) }
    let (shared, files) = (root.appendingPathComponent("shared"), FileManager.default)
    let folders = AppFolders(
      shipped: nil, shared: shared, support: root.appendingPathComponent("support"),
      caches: root.appendingPathComponent("caches"))
    for folder in [folders.support, shared] { try files.createDirectory(at: folder, withIntermediateDirectories: true) }
    for name in ["one", "two"] { try files.copyItem(at: iphone.folder, to: shared.appendingPathComponent(name)) }
    func compiled() throws -> Set<String> { Set(try files.contentsOfDirectory(atPath: folders.compiled.path)) }
    func draw(system: String) async throws -> Studio {
      let studio = Studio(
        folders: folders, engines: [CoreMLEngine(compiled: folders.compiled, version: system)],
        phone: .current(app: ProgramVersion(name: "tests", version: "1")), downloads: NoDownloads())
      await studio.start()
      studio.settings.steps = 1
      studio.draw()
      await studio.idle()
      XCTAssertNil(studio.problem)
      XCTAssertNotNil(studio.finished)
      return studio
    }
    _ = try await draw(system: "17.0")
    let before = try compiled()
    XCTAssertEqual(before.count, 3)
    _ = try await draw(system: "17.0")
    XCTAssertEqual(try compiled(), before)
    XCTAssertEqual(StandIn.compiled.count, 3, "they are kept from one start to the next")
    let studio = try await draw(system: "17.1")
    let after = try compiled()
    XCTAssertEqual(after.count, 3)
    XCTAssertTrue(after.isDisjoint(with: before), "what another version compiled is gone")
    await studio.delete(try XCTUnwrap(studio.opened).place)
    XCTAssertEqual(try compiled(), after, "the other bundle has the same files")
    await studio.delete(try XCTUnwrap(studio.bundles.first).place)
    XCTAssertEqual(try compiled(), [])
  }

  private static func iphone() throws -> ModelBundle {
    try XCTUnwrap(
      Given.bundles().map { try ModelBundle(folder: $0, digests: Given.digests) }.first {
        $0.manifest.formatNames.contains("coreml")
      })
  }
}

@MainActor private final class NoDownloads: DownloadSession {
  func load(_ address: URL, resume: Data?) -> AsyncStream<DownloadEvent> { AsyncStream { $0.finish() } }

  func running() async -> (address: URL, events: AsyncStream<DownloadEvent>)? { nil }

  func stop() {}
}
