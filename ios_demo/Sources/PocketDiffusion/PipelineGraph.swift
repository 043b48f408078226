/// What is known of a graph on one compute unit.
public struct KnownUnit: Equatable, Sendable, Decodable {
  /// `good`, `bad`, or anything else for unknown.
  public let status: String
  /// For people; may be absent.
  public let note: String?

  public var isBad: Bool { status == "bad" }

  public var isGood: Bool { status == "good" }
}

/// One graph of the pipeline, as whoever runs it needs it (docs/BUNDLE.md, section 5).
public struct PipelineGraph: Sendable {
  public struct Engine: Equatable, Sendable, Decodable {
    public let name: String
    public let leastVersion: String?
  }

  /// Bytes, as the manifest counts them; nil: not known.
  public struct Memory: Equatable, Sendable, Decodable {
    public let weightsBytes: Int64?
    public let activationsBytes: Int64?
    private let loadingBytes: Int64?
    private let keepsActivations: Bool?

    /// While the engine opens the graph, at its most.
    var opening: Int64 { max(loadingBytes ?? 0, weightsBytes ?? 0) }

    /// While it is called.
    var called: Int64 { (weightsBytes ?? 0) + (activationsBytes ?? 0) }

    /// Between its calls.
    var kept: Int64 { keepsActivations == false ? weightsBytes ?? 0 : called }
  }

  public let name: String
  /// What the engine opens: a file, or for Core ML a folder.
  public let path: String
  public let files: [String]
  public let spec: GraphSpec
  /// The file's own inputs and outputs, in the same order as those of `spec`.
  public let fileSpec: GraphSpec
  /// By the names of `spec`.
  public let transposes: [String: [Int]]
  public let storage: String
  public let arithmetic: String
  /// The unit that the export was made for: cpu, gpu, npu or ane.
  public let computeUnit: String
  public let engine: Engine?
  public let memory: Memory?
  public let units: [String: KnownUnit]
  private let ownFloor: Double?
  private let ownPictureFloor: Double?

  private static let floats: Set = ["float32", "float16"]

  /// What an output's dB have to reach beside a golden case (section 11); nil: this engine knows no floor.
  public var floor: Double? {
    if let ownFloor { return ownFloor }
    if !isOfFloats { return nil }
    if arithmetic == "float16" { return 58 }
    return storage == "float16" ? 65 : 105
  }

  /// What one picture's dB have to reach; nil: this engine knows no floor.
  public var pictureFloor: Double? {
    if let ownPictureFloor { return ownPictureFloor }
    if !isOfFloats { return nil }
    return [storage, arithmetic].contains("float16") ? 25 : 50
  }

  /// Whether floors follow from storage and arithmetic.
  private var isOfFloats: Bool { Self.floats.isSuperset(of: [storage, arithmetic]) }

  /// Throws `unitKnownBad` where the manifest says so.
  public func checkUnit(_ unit: String) throws {
    guard let known = units[unit], known.isBad else { return }
    throw EngineError.unitKnownBad(graph: name, unit: unit, note: known.note ?? "")
  }

  /// Reads the entry of a pipeline file.
  init(name: String, file: File) throws {
    self.name = name
    path = file.path
    files = file.files
    spec = file.spec
    fileSpec = file.fileSpec ?? file.spec
    transposes = file.transposes ?? [:]
    storage = file.storage
    arithmetic = file.arithmetic
    computeUnit = file.computeUnit
    engine = file.engine
    memory = file.memory
    units = file.units ?? [:]
    ownFloor = file.floorDb
    ownPictureFloor = file.pictureFloorsDb?.last
    if fileSpec.inputs.count != spec.inputs.count || fileSpec.outputs.count != spec.outputs.count {
      throw EngineError.contradiction(place: name, why: "its file_spec has not the tensors of its spec")
    }
  }

  /// As it stands in the pipeline file.
  struct File: Decodable {
    let path: String
    let files: [String]
    let spec: GraphSpec
    let fileSpec: GraphSpec?
    let transposes: [String: [Int]]?
    let storage: String
    let arithmetic: String
    let computeUnit: String
    let engine: Engine?
    let memory: Memory?
    let units: [String: KnownUnit]?
    let floorDb: Double?
    let pictureFloorsDb: [Double]?
  }
}
