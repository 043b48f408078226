import Dispatch
import Foundation

/// What a self-test says on its way.
public enum SelfTestEvent: Sendable {
  /// `done` of `total` parts; `subject` is what comes next, such as "unet on cpu".
  case part(subject: String, done: Int, total: Int)
  case finished(DeviceReport)
}

/// Whether this device draws as the original did (docs/BUNDLE.md, sections 11 and 12): the conformance vectors, one
/// recorded call of each graph on each unit, and one picture.
public struct SelfTest: Sendable {
  private static let picture = "picture"
  private static let leastPreciseFirst = ["int8", "int16", "float16", "float32"]

  private let generator: Generator
  private let device: Device
  private var bundle: ModelBundle { generator.bundle }
  private var pipeline: Pipeline { generator.pipeline }
  private var engine: any GraphEngine { generator.engine }

  public init(_ generator: Generator, device: Device) {
    self.generator = generator
    self.device = device
  }

  /// Tests all. What fails is a verdict or an error of the report; thrown are `cancelled` alone, and `notWhole` where
  /// files are not those of the manifest.
  ///
  /// - Parameters:
  ///   - units: where each graph is tried; nil: on every unit that the engine has here.
  ///   - calls: how often each graph is called, for its time.
  public func run(
    units: [String]? = nil, calls: Int = 3, cancellation: Cancellation = Cancellation()
  ) -> AsyncThrowingStream<SelfTestEvent, any Error> {
    generator.stream(cancellation) { say in
      let report = try self.runNow(units: units, calls: calls, cancellation: cancellation, say: say)
      say(.finished(report))
    }
  }

  func runNow(
    units: [String]? = nil, calls: Int = 3, cancellation: Cancellation = Cancellation(),
    say: (SelfTestEvent) -> Void = { _ in }
  ) throws -> DeviceReport {
    let vectors = try Vectors(generator)
    let units = units ?? engine.units
    let golden = bundle.manifest.golden.filter { pipeline.graphs[$0.key] != nil }.sorted { $0.key < $1.key }
    let total = vectors.all.count + golden.count * units.count + 1
    var done = 0
    func part<Result>(_ subject: String, _ work: () throws -> Result) throws -> Result {
      try cancellation.check()
      say(.part(subject: subject, done: done, total: total))
      done += 1
      return try work()
    }
    let judged = try vectors.all.map { vector in try part(vector.name) { vectors.judge(vector) } }
    generator.pool.close()  // its graphs would count among the memory of each
    var graphs: [UnitResult] = []
    for (name, golden) in golden {
      for unit in units {
        graphs.append(
          try part("\(name) on \(unit)") {
            try run(pipeline.graph(name), golden, on: unit, calls: calls, cancellation)
          })
      }
    }
    let picture = try part(Self.picture) { try bundle.manifest.picture.map { try draw($0, cancellation) } }
    return DeviceReport(
      bundleID: bundle.manifest.bundleID, runtimeID: bundle.manifest.runtimeID, device: device,
      engine: ProgramVersion(name: engine.name, version: engine.version), format: pipeline.format, graphs: graphs,
      vectors: judged, picture: picture?.verdict, drawn: picture?.drawn, pictureArithmetic: drawnIn)
  }

  /// The least precise arithmetic of the graphs that draw a picture.
  private var drawnIn: String {
    let all = pipeline.graphs.values.map { engine.arithmetic(of: $0, on: generator.pool.unit(of: $0)) }
    return Self.leastPreciseFirst.first { all.contains($0) } ?? "float32"
  }

  /// Makes one recorded call of a graph on a unit, and some more for their time.
  private func run(
    _ graph: PipelineGraph, _ golden: Manifest.GoldenCase, on unit: String, calls: Int, _ cancellation: Cancellation
  ) throws -> UnitResult {
    let inputs = try golden.inputs.mapValues(bundle.array)
    let expected = try golden.outputs.mapValues(bundle.array)
    var seconds: [Double] = []  // of loading, then of each call
    var peak: Int64?
    func timed<Result>(_ work: () throws -> Result) throws -> Result {
      let began = DispatchTime.now()
      let result = try work()
      seconds.append(PocketDiffusion.seconds(since: began))
      if let now = DeviceMemory.footprint() { peak = max(peak ?? 0, now) }
      return result
    }
    func result(_ outputs: [String: Verdict], error: String? = nil) -> UnitResult {
      UnitResult(
        graph: graph.name, unit: unit, arithmetic: engine.arithmetic(of: graph, on: unit), loadSeconds: seconds.first,
        firstCallSeconds: seconds.count > 1 ? seconds[1] : nil,
        medianCallSeconds: median(Array(seconds.dropFirst(2))), peakBytes: peak, outputs: outputs, error: error,
        draws: unit == generator.pool.unit(of: graph))
    }
    func verdict(_ name: String, _ db: Double, isFinite: Bool = true) -> Verdict {
      Verdict(
        subject: "\(graph.name).\(name) on \(unit)", psnrDb: db, floorDb: graph.floor, isFinite: isFinite,
        note: Self.noteOnFloor(of: graph, graph.floor))
    }
    do {
      try engine.check(graph, on: unit)
      let runner = try timed { try engine.open(graph, of: bundle, on: unit) }
      let outputs = try (0..<max(calls, 1)).map { _ in try timed { try runner.run(inputs, cancellation: cancellation) }
      }
      return result(
        Dictionary(
          uniqueKeysWithValues: expected.map { ($0.key, verdict($0.key, Self.compare($0.value, outputs[0][$0.key]))) }))
    } catch EngineError.notFinite(_, let output) {
      return result(
        Dictionary(
          uniqueKeysWithValues: expected.keys.map { ($0, verdict($0, -.infinity, isFinite: $0 != output)) }))
    } catch let error as EngineError where !error.stopsTest {
      return result([:], error: error.localizedDescription)
    }
  }

  /// What is to say where there is no floor for a graph.
  private static func noteOnFloor(of graph: PipelineGraph, _ floor: Double?) -> String {
    if floor != nil { return "" }
    return "this app knows no floor for \(graph.name)'s storage \(graph.storage) with arithmetic \(graph.arithmetic)"
  }

  private static func compare(_ expected: Tensor, _ made: Tensor?) -> Double {
    guard let made, made.shape == expected.shape else { return -.infinity }
    return Compare.psnr(expected.converted(to: .float32).floats, made.converted(to: .float32).floats)
  }

  /// Draws the original's picture again.
  private func draw(
    _ told: Manifest.OriginalPicture, _ cancellation: Cancellation
  ) throws -> (verdict: Verdict, drawn: Picture?) {
    let graphs = pipeline.graphs.values.sorted { $0.name < $1.name }
    let without = graphs.first { $0.pictureFloor == nil }
    let floor = without == nil ? graphs.compactMap(\.pictureFloor).min() : nil
    let unknown = without.map { Self.noteOnFloor(of: $0, nil) } ?? ""
    let request = Request(
      prompt: told.prompt, negativePrompt: told.negativePrompt, seed: told.seed, steps: told.steps,
      guidance: told.guidance, sampler: told.sampler)
    let original = try PNG.read(bundle.read(told.image), place: told.image)
    func verdict(_ db: Double, isFinite: Bool = true, note: String = "") -> Verdict {
      Verdict(subject: Self.picture, psnrDb: db, floorDb: floor, isFinite: isFinite, note: note)
    }
    do {
      let drawn = try generator.drawNow(request, cancellation: cancellation).picture
      return (verdict(Compare.psnr(original, drawn), note: unknown), drawn)
    } catch let error as EngineError where !error.stopsTest {
      var isFinite = true
      if case .notFinite = error { isFinite = false }
      return (verdict(-.infinity, isFinite: isFinite, note: error.localizedDescription), nil)
    }
  }
}

extension EngineError {
  /// Whether it ends a self-test, and is no result of it.
  fileprivate var stopsTest: Bool {
    switch self {
    case .cancelled, .notWhole: true
    default: false
    }
  }
}
