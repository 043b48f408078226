import Foundation
import OrtRunner
import PocketDiffusion
import XCTest

@testable import AppModels

/// An app in folders of its own, with onnxruntime for its engine.
@MainActor final class TestApp {
  let folders: AppFolders
  let downloads = StandInDownloads()
  var phone: Phone
  private(set) var studio: Studio

  init(_ test: XCTestCase) throws {
    let root = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    folders = AppFolders(
      shipped: root.appendingPathComponent("shipped"), shared: root.appendingPathComponent("shared"),
      support: root.appendingPathComponent("support"))
    for folder in [folders.shipped, folders.shared, folders.support].compactMap({ $0 }) {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }
    test.addTeardownBlock { try? FileManager.default.removeItem(at: root) }
    phone = .current(app: ProgramVersion(name: "tests", version: "1"))
    studio = Studio(folders: folders, engines: [try Self.engine()], phone: phone, downloads: downloads)
  }

  /// Ends the app, and starts it again.
  func restart() throws {
    studio = Studio(folders: folders, engines: [try Self.engine()], phone: phone, downloads: downloads)
  }

  /// A bundle of the built-in model in float32.
  func bundle() throws -> URL {
    for path in try Self.given("POCKET_BUNDLES").split(separator: ":") {
      let folder = URL(fileURLWithPath: String(path))
      let bundle = try ModelBundle(folder: folder)
      guard bundle.manifest.formatNames.contains("onnx") else { continue }
      if try bundle.pipeline(format: "onnx").graphs.values.allSatisfy({ $0.storage == "float32" }) { return folder }
    }
    throw Missing(description: "none of POCKET_BUNDLES holds ONNX in float32")
  }

  static func engine() throws -> OrtEngine { try OrtEngine(library: given("POCKET_ORT")) }

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
