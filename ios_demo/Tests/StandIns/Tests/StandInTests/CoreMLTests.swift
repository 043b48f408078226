import CoreML
import Foundation
import OrtRunner
import XCTest

@testable import PocketDiffusion

/// The Core ML runner itself, with a stand-in for Core ML that computes by onnxruntime.
final class CoreMLTests: XCTestCase {
  private static let floor = 60.0
  private let apple = Request(prompt: "red apple", seed: "1", steps: 4, guidance: 7.5)

  private func iphone() throws -> ModelBundle {
    for folder in try Given.bundles() {
      let bundle = try ModelBundle(folder: folder, digests: Given.digests)
      if bundle.manifest.formatNames.contains("coreml") { return bundle }
    }
    throw Given.Missing(description: "none of POCKET_BUNDLES holds Core ML")
  }

  private func graphs() throws -> AppleGraphs {
    try AppleGraphs(iphone(), exact: Given.emoji(), engine: Given.engine())
  }

  private func engine() throws -> CoreMLEngine { CoreMLEngine(compiled: try Given.scratch(self), version: "17.0") }

  /// The real iPhone bundle's manifest and program, drawn as Python draws the same model's exact graphs.
  func testTheIPhonesBundleDrawsPythonsPictures() throws {
    let graphs = try graphs()
    StandIn.give { package, _ in try graphs.model(package, gap: package.lastPathComponent == "Unet.mlpackage" ? 3 : 0) }
    let folder = try Given.requests()
    let requests = try DrawnRequests(in: folder)
    let photo = try readPicture(folder.appendingPathComponent(requests.photo))
    let generator = try Generator(bundle: iphone(), engine: engine())
    var least = Double.infinity
    let whole = try Given.emoji().folder.path
    let chosen = requests.draw.filter { $0.bundle == whole && $0.steps ?? 99 < 10 }
    for told in chosen {
      let drawn = try generator.drawNow(told.request(photo: photo, oneBatch: true))
      let original = try readPicture(folder.appendingPathComponent(told.picture))
      let db = Compare.psnr(original, drawn.picture)
      least = min(least, db)
      XCTAssertGreaterThanOrEqual(db, Self.floor, told.picture)
    }
    XCTAssertFalse(chosen.isEmpty)
    XCTAssertEqual(StandIn.compiled.count, 4)
    print("PICTURES of the iPhone's bundle by stand-ins: \(chosen.count), least \(least) dB")
  }

  func testACompiledModelIsKeptAndCompiledAgainWhereItDoesNotLoad() throws {
    let graphs = try graphs()
    let folder = try Given.scratch(self)
    let (bundle, request) = (try iphone(), apple)
    func draw() throws -> Picture {
      try Generator(bundle: bundle, engine: CoreMLEngine(compiled: folder, version: "17.0")).drawNow(request).picture
    }
    StandIn.give { package, _ in try graphs.model(package) }
    let picture = try draw()
    XCTAssertEqual(Set(StandIn.compiled), ["TextEncoder.mlpackage", "Unet.mlpackage", "VAEDecoder.mlpackage"])
    XCTAssertEqual(try draw(), picture)
    XCTAssertEqual(StandIn.compiled.count, 3)
    let kept = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    XCTAssertEqual(kept.count, 3)
    for name in kept { try FileManager.default.removeItem(at: folder.appendingPathComponent("\(name)/source")) }
    XCTAssertEqual(try draw(), picture)
    XCTAssertEqual(StandIn.compiled.count, 6)
  }

  func testOnlyTheUnitThatIsAskedForIsUsed() throws {
    let graphs = try graphs()
    StandIn.give { package, _ in try graphs.model(package) }
    for (unit, said) in [("cpu", "cpuOnly"), ("gpu", "cpuAndGPU"), ("ane", "cpuAndNeuralEngine")] {
      _ = try Generator(bundle: iphone(), engine: engine(), wishedUnit: { _ in unit }).drawNow(apple)
      XCTAssertTrue(StandIn.loaded.suffix(3).allSatisfy { $0.hasSuffix(said) }, "\(StandIn.loaded)")
    }
    XCTAssertFalse(StandIn.loaded.contains { $0.hasSuffix(" all") })
  }

  func testAUnitThatDoesNotLoadGivesWayToTheCPU() throws {
    let graphs = try graphs()
    StandIn.give { package, units in
      if units != .cpuOnly && package.lastPathComponent == "Unet.mlpackage" { throw StandInError("ANECCompile failed") }
      return try graphs.model(package)
    }
    let drawn = try Generator(bundle: iphone(), engine: engine()).drawNow(apple)
    XCTAssertEqual(drawn.fallbacks, ["unet": .engineFailure(graph: "unet", said: "ANECCompile failed")])
    StandIn.give { _, _ in throw StandInError("no memory") }
    assertThrows(try Generator(bundle: iphone(), engine: engine()).drawNow(apple)) {
      $0 == .engineFailure(graph: "text_encoder", said: "no memory")
    }
  }

  func testModelsAreUnloadedBetweenStages() throws {
    let graphs = try graphs()
    StandIn.give { package, _ in try graphs.model(package) }
    for (residency, most) in [(Residency.keep, 3), (.stage, 1), (.call, 1)] {
      StandIn.give { package, _ in try graphs.model(package) }
      let generator = try Generator(bundle: iphone(), engine: engine(), residency: residency)
      _ = try generator.drawNow(apple)
      XCTAssertEqual(StandIn.mostOpen, most)
      XCTAssertEqual(StandIn.open, residency == .keep ? 3 : 0)
    }
    XCTAssertEqual(StandIn.open, 0)
  }

  func testNaNOfAUnitIsToldByTheGraphsName() throws {
    let graphs = try graphs()
    StandIn.give { package, _ in
      try graphs.model(package) { graph, made in
        guard graph == "unet" else { return made }
        return made.mapValues { Tensor([Float](repeating: .nan, count: $0.count), shape: $0.shape) }
      }
    }
    assertThrows(try Generator(bundle: iphone(), engine: engine()).drawNow(apple)) {
      $0 == .notFinite(graph: "unet", output: "out_sample")
    }
  }

  func testADrawingIsCancelledWithinAStep() async throws {
    let graphs = try graphs()
    let calls = Counter()
    let cancellation = Cancellation()
    StandIn.give { package, _ in
      try graphs.model(package) { graph, made in
        if graph == "unet", calls.next() == 3 { cancellation.cancel() }  // in the midst of the second step
        return made
      }
    }
    let generator = try Generator(bundle: iphone(), engine: engine())
    do {
      for try await _ in generator.draw(apple, cancellation: cancellation) {}
      XCTFail("it was not cancelled")
    } catch {
      XCTAssertEqual(error as? EngineError, .cancelled)
    }
    XCTAssertEqual(calls.value, 3)
  }

  func testAFileOfOtherTensorsIsRefused() throws {
    let graphs = try graphs()
    StandIn.give { package, _ in
      let model = try graphs.model(package)
      let outputs = model.outputs.map { StandIn.Tensor(name: "\($0.name)_2", shape: $0.shape, dataType: $0.dataType) }
      return StandIn.Model(inputs: model.inputs, outputs: outputs, predict: model.predict)
    }
    assertThrows(try Generator(bundle: iphone(), engine: engine()).drawNow(apple)) { error in
      if case .engineFailure("text_encoder", let said) = error { said.contains("last_hidden_state") } else { false }
    }
  }

  func testAnOlderSystemIsToldWhatItLacks() throws {
    let engine = CoreMLEngine(compiled: try Given.scratch(self), version: "16.7")
    assertThrows(try Generator(bundle: iphone(), engine: engine)) {
      $0 == .engineTooOld(graph: "text_encoder", engine: "coreml", needs: "17", has: "16.7")
    }
  }

  func testPackagesAreGuardedByTheirDigests() throws {
    let folder = try Forgery.copy(iphone().folder, into: Given.scratch(self))
    let bundle = try ModelBundle(folder: folder)
    let path = "coreml/Unet.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    let graphs = try graphs()
    StandIn.give { package, _ in try graphs.model(package) }
    var bytes = try Data(contentsOf: folder.appendingPathComponent(path))
    bytes[10] ^= 1
    try bytes.write(to: folder.appendingPathComponent(path))
    assertThrows(try Generator(bundle: bundle, engine: engine()).drawNow(apple)) {
      $0 == .notWhole([Fault(path: path, kind: .content)])
    }
  }

  /// On stand-ins that compute exactly every unit passes, and the report has each.
  func testTheSelfTestTriesEveryUnit() throws {
    let graphs = try graphs()
    StandIn.give { package, _ in try graphs.model(package) }
    let device = Device.current(app: ProgramVersion(name: "tests", version: "1"))
    let report = try SelfTest(Generator(bundle: iphone(), engine: engine()), device: device).runNow()
    XCTAssertTrue(report.passed)
    XCTAssertEqual(report.graphs.count, 4 * 3)
    XCTAssertEqual(Set(report.graphs.map(\.unit)), ["cpu", "gpu", "ane"])
    XCTAssertEqual(report.graphs.compactMap(\.medianCallSeconds).count, 12)
  }
}
