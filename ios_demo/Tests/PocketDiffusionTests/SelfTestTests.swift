import Foundation
import XCTest

@testable import PocketDiffusion

/// What a self-test says where something is wrong: verdicts and errors of the report, not exceptions.
final class SelfTestTests: XCTestCase {
  private let device = Device.current(app: ProgramVersion(name: "tests", version: "1"))

  private func report(
    units: [String] = ["cpu"], before: @escaping @Sendable (String) throws -> Void = { _ in },
    after: @escaping @Sendable (String, Values) -> Values = { $1 }
  ) throws -> DeviceReport {
    let engine = ChangedEngine(try Given.engine(), units: units, before: before, after: after)
    let folder = try Given.kit().appendingPathComponent("pndm")
    let bundle = try ModelBundle(folder: folder, digests: Given.digests)
    return try SelfTest(Generator(bundle: bundle, engine: engine), device: device).runNow()
  }

  func testAGraphThatErrsFailsByItsName() throws {
    let report = try report(after: { graph, made in
      guard graph == "unet" else { return made }
      return made.mapValues { Tensor($0.floats.map { $0 * 1.01 }, shape: $0.shape) }
    })
    XCTAssertFalse(report.passed)
    XCTAssertEqual(report.graphs.filter { !$0.passed }.map(\.graph), ["unet"])
    let db = try XCTUnwrap(report.graphs.first { $0.graph == "unet" }?.outputs.values.first?.psnrDb)
    XCTAssertGreaterThan(db, 40)
    XCTAssertLessThan(db, 60)
    XCTAssertTrue(report.vectors.allSatisfy(\.passed))
  }

  func testNaNAndErrorsAreResults() throws {
    let report = try report(
      units: ["cpu", "ane"],
      before: { graph in
        if graph == "vae_decoder" { throw EngineError.engineFailure(graph: graph, said: "no room") }
      },
      after: { graph, made in
        graph == "unet" ? made.mapValues { Tensor([Float](repeating: .nan, count: $0.count), shape: $0.shape) } : made
      })
    let unet = report.graphs.filter { $0.graph == "unet" && $0.unit == "cpu" }
    XCTAssertEqual(unet.flatMap(\.outputs.values).map(\.isFinite), [false])
    let decoder = try XCTUnwrap(report.graphs.first { $0.graph == "vae_decoder" })
    XCTAssertEqual(decoder.error?.contains("no room"), true)
    XCTAssertTrue(decoder.outputs.isEmpty)
    XCTAssertEqual(report.picture?.passed, false)
    let json = String(decoding: try report.json(), as: UTF8.self)
    XCTAssertTrue(json.contains(#""psnr_db" : "-Infinity""#))
    XCTAssertTrue(json.contains(#""soc" : null"#))
    XCTAssertTrue(json.contains(#""median_call_seconds" : null"#))
  }

  /// A report of the kit's bundle, with its manifest and its pipeline file changed.
  private func changedReport(
    units: [String], pipeline: (inout [String: Any]) -> Void = { _ in },
    manifest: (inout [String: Any]) -> Void = { _ in }
  ) throws -> DeviceReport {
    let folder = try Forgery.copy(Given.kit().appendingPathComponent("pndm"), into: Given.scratch(self))
    try Forgery.change(folder, "pipeline/onnx.json", pipeline)
    try Forgery.change(folder, "manifest.json", manifest)
    let engine = ChangedEngine(try Given.engine(), units: units)
    return try SelfTest(Generator(bundle: ModelBundle(folder: folder), engine: engine), device: device).runNow(calls: 1)
  }

  /// A unit that draws nothing here is told, and is no fault: npu is known to be bad for the kit's U-Net.
  func testOnlyUnitsThatDrawAreJudged() throws {
    let told = try changedReport(units: ["cpu", "npu"])
    let failed = told.graphs.filter { !$0.passed }
    XCTAssertEqual(failed.map { "\($0.graph) on \($0.unit)" }, ["unet on npu"])
    XCTAssertEqual(told.drawing.map(\.unit), ["cpu", "cpu", "cpu", "cpu"])
    XCTAssertTrue(told.passed)
  }

  /// A bundle that brings nothing to judge a part by proves nothing.
  func testWithoutRecordedCallsOrAPictureNothingPasses() throws {
    let noCalls = try changedReport(units: ["cpu"], manifest: { $0["golden"] = [String: Any]() })
    XCTAssertTrue(noCalls.graphs.isEmpty)
    XCTAssertFalse(noCalls.passed)
    let noPicture = try changedReport(units: ["cpu"], manifest: { $0["picture"] = NSNull() })
    XCTAssertNil(noPicture.picture)
    XCTAssertFalse(noPicture.passed)
    let whole = try changedReport(units: ["cpu"])
    XCTAssertTrue(whole.isWhole && whole.passed)
    let noVectors = DeviceReport(
      bundleID: whole.bundleID, runtimeID: whole.runtimeID, device: device, engine: whole.engine, format: whole.format,
      graphs: whole.graphs, vectors: [], picture: whole.picture, drawn: whole.drawn,
      pictureArithmetic: whole.pictureArithmetic)
    for lacking in [noCalls, noPicture, noVectors] { XCTAssertFalse(lacking.isWhole || lacking.passed) }
  }

  func testTheMedianOfTwoInTheMiddleIsTheirAverage() {
    XCTAssertNil(median([]))
    XCTAssertEqual(median([3, 1]), 2)
    XCTAssertEqual(median([5, 1, 2]), 2)
    XCTAssertEqual(median([9, 1, 4, 2]), 3)
  }

  /// Of a storage or arithmetic of later this engine knows no floor: it says so, and nothing passes by it.
  func testWhatIsStoredInAWayOfLaterIsNotCalledGood() throws {
    for member in ["storage", "arithmetic"] {
      let told = try changedReport(
        units: ["cpu"], pipeline: { setting(&$0, ["graphs", "unet", member], to: "ternary") })
      XCTAssertEqual(told.graphs.filter { !$0.passed }.map(\.graph), ["unet"], member)
      let verdict = try XCTUnwrap(told.graphs.first { $0.graph == "unet" }?.outputs.values.first)
      XCTAssertTrue("\(verdict)".contains("no floor known; this app knows no floor for unet's storage"), "\(verdict)")
      XCTAssertEqual(told.picture?.passed, false)
      XCTAssertFalse(told.passed)
    }
    let withFloors = try changedReport(
      units: ["cpu"],
      pipeline: {
        setting(&$0, ["graphs", "unet", "storage"], to: "ternary")
        setting(&$0, ["graphs", "unet", "floor_db"], to: 40.0)
        setting(&$0, ["graphs", "unet", "picture_floors_db"], to: [30.0, 20.0])
      })
    XCTAssertTrue(withFloors.passed)
  }

  func testItTellsWhereItIsAndCanBeCancelled() async throws {
    let folder = try Given.kit().appendingPathComponent("pndm")
    let generator = try Generator(
      bundle: ModelBundle(folder: folder, digests: Given.digests), engine: Given.engine())
    let cancellation = Cancellation()
    var subjects: [String] = []
    do {
      for try await event in SelfTest(generator, device: device).run(cancellation: cancellation) {
        guard case .part(let subject, let done, let total) = event else { continue }
        XCTAssertEqual(done, subjects.count)
        XCTAssertGreaterThan(total, 45)
        subjects.append(subject)
        if subjects.count == 3 { cancellation.cancel() }
      }
      XCTFail("it was not cancelled")
    } catch {
      XCTAssertEqual(error as? EngineError, .cancelled)
    }
    XCTAssertLessThan(subjects.count, 60)
  }

  func testFilesThatAreNotTheManifestsEndIt() throws {
    let folder = try Forgery.copy(Given.kit().appendingPathComponent("pndm"), into: Given.scratch(self))
    let generator = try Generator(bundle: ModelBundle(folder: folder), engine: Given.engine())
    let path = try generator.pipeline.graph("unet").path
    var bytes = try Data(contentsOf: folder.appendingPathComponent(path))
    bytes[100] ^= 1
    try bytes.write(to: folder.appendingPathComponent(path))
    assertThrows(try SelfTest(generator, device: device).runNow()) {
      $0 == .notWhole([Fault(path: path, kind: .content)])
    }
  }

  func testAVectorThatIsNotMetSaysWhatIsWrong() throws {
    let folder = try Given.kit().appendingPathComponent("pndm")
    let generator = try Generator(
      bundle: ModelBundle(folder: folder, digests: Given.digests), engine: Given.engine())
    let vectors = try Vectors(generator)
    let good = try XCTUnwrap(vectors.all.first { $0.kind == "decoder_scale" })
    func changed(_ kind: String, _ change: (Tensor) -> Tensor) -> Vector {
      let cases = good.cases.map {
        VectorCase(
          label: $0.label, texts: $0.texts, numbers: $0.numbers, arrays: $0.arrays,
          expected: $0.expected.mapValues(change))
      }
      return Vector(name: good.name, kind: kind, tells: "the scale is wrong", floorDb: good.floorDb, cases: cases)
    }
    XCTAssertTrue(vectors.judge(good).passed)
    let wrong = vectors.judge(changed(good.kind) { Tensor($0.floats.map { $0 * 1.1 }, shape: $0.shape) })
    XCTAssertFalse(wrong.passed)
    XCTAssertTrue(wrong.note.contains("the scale is wrong"))
    XCTAssertTrue(vectors.judge(changed("of_later") { $0 }).note.contains("too old"))
    XCTAssertFalse(vectors.judge(changed("guidance") { $0 }).passed)  // the case gives not what the kind takes
  }
}
