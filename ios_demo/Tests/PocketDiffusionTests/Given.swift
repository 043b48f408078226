import Foundation
import OrtRunner
import XCTest

@testable import PocketDiffusion

/// The folders that tests are given by environment variables (see ios_demo/run_tests.py). A test that needs one which is
/// not given fails.
enum Given {
  struct Missing: Error, CustomStringConvertible {
    let description: String
  }

  /// Bundles of the built-in model.
  static func bundles() throws -> [URL] { try folders("POCKET_BUNDLES", "bundles of the built-in model") }

  /// The first of them that holds ONNX in float32, which is exact enough to be compared with Python's pictures.
  static func emoji() throws -> ModelBundle {
    try first("none of POCKET_BUNDLES holds ONNX in float32") { _ in true }
  }

  /// The first of them that is as exact, and whose UNet is several graphs: `pocketdiffusion export --split-unet`.
  static func split() throws -> ModelBundle {
    try first("none of POCKET_BUNDLES holds several graphs of a UNet in float32") { pipeline in
      let hosts = pipeline.program.hosts(tokenizers: pipeline.tokenizers.count, hasPicture: false)
      guard let stage = try pipeline.program.variant(Program.denoise, hosts: hosts) else { return false }
      return try pipeline.graphs(of: stage).count > 1
    }
  }

  private static func first(_ missing: String, where isWanted: (Pipeline) throws -> Bool) throws -> ModelBundle {
    for folder in try bundles() {
      let bundle = try ModelBundle(folder: folder, digests: digests)
      guard bundle.manifest.formatNames.contains("onnx") else { continue }
      let pipeline = try bundle.pipeline(format: "onnx")
      let isExact = pipeline.graphs.values.allSatisfy { $0.storage == "float32" }
      if try isExact && isWanted(pipeline) { return bundle }
    }
    throw Missing(description: missing)
  }

  /// The reader's kit.
  static func kit() throws -> URL {
    try folders("POCKET_KIT", "the reader's kit: pocketdiffusion reader-kit FOLDER")[0]
  }

  /// Pictures that Python drew.
  static func requests() throws -> URL { try folders("POCKET_REQUESTS", "what ios_demo/draw_requests.py wrote")[0] }

  /// A file of tests/golden, the vectors that every engine of this project must pass.
  static func golden<Value: Decodable>(_ type: Value.Type, _ name: String) throws -> Value {
    var root = URL(fileURLWithPath: #filePath)
    repeat {
      root.deleteLastPathComponent()
    } while root.path != "/"
      && !FileManager.default.fileExists(atPath: root.appendingPathComponent("tests/golden/\(name)").path)
    let file = root.appendingPathComponent("tests/golden/\(name)")
    return try BundleJSON.decode(type, from: Array(Data(contentsOf: file)), path: name)
  }

  /// onnxruntime, on one thread.
  static func engine() throws -> OrtEngine { try OrtEngine(library: text("POCKET_ORT", "libonnxruntime.so of Python")) }

  static let digests = DigestMemory()

  static func text(_ name: String, _ what: String) throws -> String {
    guard let text = ProcessInfo.processInfo.environment[name], !text.isEmpty else {
      throw Missing(description: "this test needs \(name): \(what)")
    }
    return text
  }

  private static func folders(_ name: String, _ what: String) throws -> [URL] {
    try text(name, what).split(separator: ":").map { URL(fileURLWithPath: String($0)) }
  }

  /// A new folder of a test, which is removed behind it.
  static func scratch(_ test: XCTestCase) throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    test.addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
    return folder
  }
}

/// Fails where `work` throws nothing, or another error than the one that `isWanted` knows.
func assertThrows<Result>(
  _ work: @autoclosure () throws -> Result, _ isWanted: (EngineError) -> Bool, file: StaticString = #filePath,
  line: UInt = #line
) {
  do {
    _ = try work()
    XCTFail("nothing was thrown", file: file, line: line)
  } catch let error as EngineError {
    XCTAssertTrue(isWanted(error), "\(error)", file: file, line: line)
    XCTAssertFalse(error.localizedDescription.isEmpty, file: file, line: line)
  } catch {
    XCTFail("\(error) is not an EngineError", file: file, line: line)
  }
}
