import Foundation
import XCTest

@testable import PocketDiffusion

/// A unit of which nothing is known draws once its self-test passed on this device.
final class UnitVerdictsTests: XCTestCase {
  private let os = ProgramVersion(name: "iOS", version: "17.0")

  private func bundle() throws -> ModelBundle {
    try ModelBundle(folder: Given.kit().appendingPathComponent("pndm"), digests: Given.digests)
  }

  /// Tested on the CPU and a GPU; a result on either of the graph `wrong` is not finite.
  private func tested(wrong: String? = nil) throws -> DeviceReport {
    let engine = ChangedEngine(
      try Given.engine(), units: ["cpu", "gpu"],
      after: { graph, made in
        if graph != wrong { return made }
        return made.mapValues { Tensor([Float](repeating: .nan, count: $0.count), shape: $0.shape) }
      })
    let device = Device.current(app: ProgramVersion(name: "tests", version: "1"))
    return try SelfTest(Generator(bundle: bundle(), engine: engine), device: device).runNow(calls: 1)
  }

  func testAUnitOfWhichNothingIsKnownIsAllowedOnceItsTestPassed() throws {
    let verdicts = UnitVerdicts(os: os)
    let bundle = try bundle()
    let unet = try bundle.pipeline(format: "onnx").graph("unet")
    func allows(_ unit: String) -> Bool { verdicts.allows(unet, runtimeID: bundle.manifest.runtimeID, unit: unit) }
    XCTAssertTrue(allows("cpu"))
    XCTAssertFalse(allows("gpu"))
    XCTAssertFalse(allows("npu"))  // known to be bad
    verdicts.remember(try tested())
    XCTAssertTrue(allows("gpu"))
    XCTAssertFalse(allows("npu"))
  }

  func testAVerdictIsOfAGraphAUnitABundleAndAnOperatingSystem() throws {
    let store = try Given.scratch(self).appendingPathComponent("units.json")
    UnitVerdicts(os: os, store: store).remember(try tested(wrong: "vae_decoder"))
    let id = try bundle().manifest.runtimeID
    func passed(_ version: String, _ id: String, _ graph: String) -> Bool? {
      UnitVerdicts(os: ProgramVersion(name: "iOS", version: version), store: store)
        .passed(runtimeID: id, graph: graph, unit: "gpu")
    }
    XCTAssertEqual(passed("17.0", id, "unet"), true)
    XCTAssertEqual(passed("17.0", id, "vae_decoder"), false)
    XCTAssertNil(passed("17.1", id, "unet"))
    XCTAssertNil(passed("17.0", try Given.emoji().manifest.runtimeID, "unet"))
    try Data("no JSON".utf8).write(to: store)
    XCTAssertNil(passed("17.0", id, "unet"))
  }
}
