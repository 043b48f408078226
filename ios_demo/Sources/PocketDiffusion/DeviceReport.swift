import Foundation

/// A program and its version, as it states it.
public struct ProgramVersion: Equatable, Sendable, Encodable {
  public let name: String
  public let version: String

  public init(name: String, version: String) {
    self.name = name
    self.version = version
  }
}

/// The phone that a report is of, and the programs on it.
public struct Device: Equatable, Sendable {
  public let maker: String
  public let model: String
  public let soc: String?
  public let os: ProgramVersion
  public let app: ProgramVersion

  public init(maker: String, model: String, soc: String?, os: ProgramVersion, app: ProgramVersion) {
    self.maker = maker
    self.model = model
    self.soc = soc
    self.os = os
    self.app = app
  }

  /// This device, by the name that its maker gave the model, such as iPhone15,4. The system does not tell the processor.
  public static func current(app: ProgramVersion) -> Device {
    var names = utsname()
    uname(&names)
    func text<Characters>(_ characters: Characters) -> String {
      withUnsafeBytes(of: characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    let version = ProcessInfo.processInfo.operatingSystemVersion
    #if os(iOS)
      let (maker, name) = ("Apple", "iOS")
    #elseif os(macOS)
      let (maker, name) = ("Apple", "macOS")
    #else
      let (maker, name) = ("unknown", text(names.sysname))
    #endif
    return Device(
      maker: maker, model: text(names.machine), soc: nil,
      os: ProgramVersion(name: name, version: "\(version.majorVersion).\(version.minorVersion)"), app: app)
  }
}

/// One graph on one compute unit.
public struct UnitResult: Equatable, Sendable {
  public let graph: String
  public let unit: String
  public let arithmetic: String
  public let loadSeconds: Double?
  public let firstCallSeconds: Double?
  public let medianCallSeconds: Double?
  /// The largest that was seen after loading and after each call.
  public let peakBytes: Int64?
  /// By the output's name.
  public let outputs: [String: Verdict]
  /// What the engine said where the unit refused the graph or a call failed.
  public let error: String?
  /// Whether drawings run the graph on this unit.
  public let draws: Bool

  public var passed: Bool { error == nil && !outputs.isEmpty && outputs.values.allSatisfy(\.passed) }
}

/// What a self-test found. `json` is the device report of docs/BUNDLE.md (runtime/devices/device_report.schema.json),
/// which `pocketdiffusion verify DIR --device-report FILE` shows beside the host's verdicts.
public struct DeviceReport: Sendable {
  public let bundleID: String
  public let runtimeID: String
  public let device: Device
  public let engine: ProgramVersion
  public let format: String
  public let graphs: [UnitResult]
  public let vectors: [Verdict]
  /// The picture beside the original's; nil where the bundle has none.
  public let picture: Verdict?
  /// What was drawn for it; nil where that failed.
  public let drawn: Picture?
  /// The least precise arithmetic of the graphs that drew it.
  public let pictureArithmetic: String

  /// Whether drawings here are those of the original. What fails on a unit that draws nothing here is no fault.
  public var passed: Bool {
    isWhole && drawing.allSatisfy(\.passed) && vectors.allSatisfy(\.passed) && picture?.passed == true
  }

  /// Whether there was something to judge of each kind: a bundle without golden cases proves nothing.
  public var isWhole: Bool { !drawing.isEmpty && !vectors.isEmpty && picture != nil }

  /// Each graph on the unit that draws with it.
  public var drawing: [UnitResult] { graphs.filter(\.draws) }

  /// The file's bytes: UTF-8 with a newline at the end.
  public func json() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "Infinity", negativeInfinity: "-Infinity", nan: "NaN")
    return try encoder.encode(File(self)) + Data("\n".utf8)
  }

  /// Null where there is nothing: the schema wants every member.
  private struct OrNull<Value: Encodable>: Encodable {
    let value: Value?

    func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      if let value { try container.encode(value) } else { try container.encodeNil() }
    }
  }

  private struct File: Encodable {
    struct Phone: Encodable {
      let maker: String
      let model: String
      let soc: OrNull<String>
    }

    struct Output: Encodable {
      let output: String
      let psnrDb: Double
      let finite: Bool
    }

    struct Graph: Encodable {
      let format: String
      let graph: String
      let unit: String
      let arithmetic: String
      let loadSeconds: OrNull<Double>
      let firstCallSeconds: OrNull<Double>
      let medianCallSeconds: OrNull<Double>
      let peakBytes: OrNull<Int64>
      let outputs: [Output]
      let error: OrNull<String>
    }

    struct Conformance: Encodable {
      let passed: [String]
      let failed: [String]
    }

    struct Drawn: Encodable {
      let format: String
      let arithmetic: String
      let psnrDb: Double
    }

    let version = 1
    let bundleId: String
    let runtimeId: String
    let device: Phone
    let os: ProgramVersion
    let app: ProgramVersion
    let engines: [ProgramVersion]
    let graphs: [Graph]
    let conformance: Conformance
    let pictures: [Drawn]

    init(_ report: DeviceReport) {
      bundleId = report.bundleID
      runtimeId = report.runtimeID
      device = Phone(
        maker: report.device.maker, model: report.device.model, soc: OrNull(value: report.device.soc))
      os = report.device.os
      app = report.device.app
      engines = [report.engine]
      graphs = report.graphs.map { result in
        Graph(
          format: report.format, graph: result.graph, unit: result.unit, arithmetic: result.arithmetic,
          loadSeconds: OrNull(value: result.loadSeconds), firstCallSeconds: OrNull(value: result.firstCallSeconds),
          medianCallSeconds: OrNull(value: result.medianCallSeconds), peakBytes: OrNull(value: result.peakBytes),
          outputs: result.outputs.sorted { $0.key < $1.key }.map {
            Output(output: $0.key, psnrDb: $0.value.psnrDb, finite: $0.value.isFinite)
          }, error: OrNull(value: result.error))
      }
      conformance = Conformance(
        passed: report.vectors.filter(\.passed).map(\.subject),
        failed: report.vectors.filter { !$0.passed }.map(\.subject))
      pictures =
        report.picture.map { verdict in
          [Drawn(format: report.format, arithmetic: report.pictureArithmetic, psnrDb: verdict.psnrDb)]
        } ?? []
    }
  }
}
