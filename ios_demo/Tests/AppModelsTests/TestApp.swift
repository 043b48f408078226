import Foundation
import OrtRunner
import PocketDiffusion
import XCTest

@testable import AppModels

/// An app in folders of its own, with onnxruntime for its engine.
@MainActor final class TestApp {
  let folders: AppFolders
  let downloads = StandInDownloads()
  let engine: FailingEngine
  var phone: Phone
  private(set) var studio: Studio

  init(_ test: XCTestCase) throws {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    folders = AppFolders(
      shipped: root.appendingPathComponent("shipped"), shared: root.appendingPathComponent("shared"),
      support: root.appendingPathComponent("support"), caches: root.appendingPathComponent("caches"))
    for folder in [folders.shipped, folders.shared, folders.support].compactMap({ $0 }) {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }
    test.addTeardownBlock { try? FileManager.default.removeItem(at: root) }
    engine = FailingEngine(try OrtEngine(library: Self.given("POCKET_ORT")))
    phone = .current(app: ProgramVersion(name: "tests", version: "1"))
    studio = Studio(folders: folders, engines: [engine], phone: phone, downloads: downloads)
  }

  /// Ends the app, and starts it again on `phone`.
  func restart() {
    studio = Studio(folders: folders, engines: [engine], phone: phone, downloads: downloads)
  }

  /// A small bundle of the reader's kit, with all its parts.
  func bundle() throws -> URL { URL(fileURLWithPath: try Self.given("POCKET_KIT")).appendingPathComponent("pndm") }

  /// The bundle of the built-in model whose UNet is several graphs.
  func splitBundle() throws -> URL {
    for folder in try Self.given("POCKET_BUNDLES").split(separator: ":").map({ URL(fileURLWithPath: String($0)) }) {
      let bundle = try ModelBundle(folder: folder, digests: DigestMemory())
      guard bundle.manifest.formatNames.contains(engine.format) else { continue }
      if try bundle.pipeline(format: engine.format).graphs["unet_1"] != nil { return folder }
    }
    throw Missing(description: "none of POCKET_BUNDLES holds several graphs of a UNet")
  }

  /// The same as `bundle` in a zip: flat.zip is deflated, long.zip has the form of
  /// those beyond 4 GB, folder.zip is stored, in a folder.
  func zip(_ name: String) throws -> URL {
    URL(fileURLWithPath: try Self.given("POCKET_ZIPS")).appendingPathComponent(name)
  }

  /// A copy of the bundle in the folder that Files and a computer see.
  @discardableResult func copyBundle(_ name: String = "copy") throws -> URL {
    let folder = try XCTUnwrap(folders.shared).appendingPathComponent(name)
    try FileManager.default.copyItem(at: bundle(), to: folder)
    return folder
  }

  /// Picks the bundle in Files, and waits until it is open.
  @discardableResult func open() async throws -> Opened {
    studio.pick(try bundle())
    await studio.idle()
    XCTAssertNil(studio.problem)
    return try XCTUnwrap(studio.opened)
  }

  /// Waits until the stand-in was asked for its n-th download.
  func downloadBegun(_ n: Int) async throws {
    while downloads.asked.count < n { try await Task.sleep(nanoseconds: 1_000_000) }
  }

  private static func given(_ name: String) throws -> String {
    guard let text = ProcessInfo.processInfo.environment[name], !text.isEmpty else {
      throw Missing(description: "this test needs \(name): see ios_demo/run_tests.py")
    }
    return text
  }

  private struct Missing: Error, CustomStringConvertible {
    let description: String
  }
}

/// In place of iOS's background session: a test says what comes.
@MainActor final class StandInDownloads: DownloadSession {
  private(set) var asked: [(address: URL, resume: Data?)] = []
  private(set) var stops = 0
  private var says: AsyncStream<DownloadEvent>.Continuation?
  var left: (address: URL, events: AsyncStream<DownloadEvent>)?

  func load(_ address: URL, resume: Data?) -> AsyncStream<DownloadEvent> {
    asked.append((address, resume))
    let (events, says) = AsyncStream.makeStream(of: DownloadEvent.self)
    self.says = says
    return events
  }

  func running() async -> (address: URL, events: AsyncStream<DownloadEvent>)? { left }

  func stop() {
    stops += 1
    say(.broken(said: "stopped", resume: Data([1])))
  }

  func say(_ event: DownloadEvent) {
    says?.yield(event)
    if case .bytes = event { return }
    says?.finish()
  }
}

/// onnxruntime, which fails or errs where a test wants it to.
final class FailingEngine: GraphEngine, @unchecked Sendable {  // a test changes it while nothing is drawn
  private let engine: OrtEngine
  var failsToRun = false
  /// A unit more, on which no graph can be opened.
  var unitThatFails: String?
  /// Whether the next call of a graph fails, and no other.
  var failsOnce: Bool {
    get { lock.withLock { failing } }
    set { lock.withLock { failing = newValue } }
  }
  private let lock = NSLock()
  private var failing = false
  /// What is added to all results.
  var adds: Float = 0

  init(_ engine: OrtEngine) { self.engine = engine }

  var name: String { engine.name }
  var version: String { engine.version }
  var format: String { engine.format }
  var units: [String] { engine.units + [unitThatFails].compactMap { $0 } }

  func arithmetic(of graph: PipelineGraph, on unit: String) -> String { engine.arithmetic(of: graph, on: unit) }

  func open(_ graph: PipelineGraph, of bundle: ModelBundle, on unit: String) throws -> any GraphRunner {
    if failsToRun || unit == unitThatFails {
      throw EngineError.engineFailure(graph: graph.name, said: "not in the background")
    }
    let runner = try engine.open(graph, of: bundle, on: unit)
    return ErringRunner(runner: runner, engine: self)
  }
}

private final class ErringRunner: GraphRunner {
  private let runner: any GraphRunner
  private let engine: FailingEngine

  init(runner: any GraphRunner, engine: FailingEngine) {
    self.runner = runner
    self.engine = engine
  }

  func run(_ inputs: Values, cancellation: Cancellation) throws -> Values {
    if engine.failsOnce {
      engine.failsOnce = false
      throw EngineError.engineFailure(graph: "unet", said: "not in the background")
    }
    let made = try runner.run(inputs, cancellation: cancellation)
    let adds = engine.adds
    return adds == 0 ? made : made.mapValues { Tensor($0.floats.map { $0 + adds }, shape: $0.shape) }
  }
}
