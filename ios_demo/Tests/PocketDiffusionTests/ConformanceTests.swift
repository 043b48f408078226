import Foundation
import XCTest

@testable import PocketDiffusion

/// What every bundle that is given has to prove here: all files, all vectors, all golden cases, its picture.
final class ConformanceTests: XCTestCase {
  private static let device = Device.current(app: ProgramVersion(name: "tests", version: "1"))

  func testTheBuiltInModelProvesItself() throws {
    for folder in try Given.bundles() { try prove(folder) }
  }

  func testTheKitProvesItself() throws {
    let kit = try Given.kit()
    let names = Set(try DrawnRequests(in: kit).draw.map(\.bundle))
    XCTAssertFalse(names.isEmpty)
    for name in names.sorted() { try prove(URL(fileURLWithPath: name, relativeTo: kit)) }
  }

  private func prove(_ folder: URL) throws {
    let bundle = try ModelBundle(folder: folder, digests: Given.digests)
    try bundle.checkAll()
    let engine = try Given.engine()
    guard bundle.manifest.formatNames.contains("onnx") else {  // another format is read, and refused by its name
      for format in bundle.manifest.formatNames { XCTAssertFalse(try bundle.pipeline(format: format).graphs.isEmpty) }
      return assertThrows(try Generator(bundle: bundle, engine: engine)) { error in
        if case .cannotRunHere(_, let why) = error { why.contains(bundle.manifest.formatNames[0]) } else { false }
      }
    }
    let report = try SelfTest(Generator(bundle: bundle, engine: engine), device: Self.device).runNow()
    XCTAssertGreaterThan(report.vectors.count, 30)
    XCTAssertGreaterThanOrEqual(report.graphs.count, 3)
    for verdict in report.vectors { XCTAssertTrue(verdict.passed, "\(folder.lastPathComponent): \(verdict)") }
    for graph in report.graphs {
      XCTAssertNil(graph.error)
      for verdict in graph.outputs.values { XCTAssertTrue(verdict.passed, "\(folder.lastPathComponent): \(verdict)") }
    }
    let picture = try XCTUnwrap(report.picture)
    XCTAssertTrue(picture.passed, "\(folder.lastPathComponent): \(picture)")
    XCTAssertTrue(report.passed)
    let db = report.graphs.flatMap(\.outputs.values).map(\.psnrDb).min() ?? 0
    print("CONFORMANCE \(folder.lastPathComponent): \(report.vectors.count) vectors, graphs \(db) dB, \(picture)")
    if let out = ProcessInfo.processInfo.environment["POCKET_REPORTS"] {  // for pocketdiffusion verify --device-report
      let file = URL(fileURLWithPath: out).appendingPathComponent("\(folder.lastPathComponent).json")
      try report.json().write(to: file)
    }
  }
}
