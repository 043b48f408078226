/// manifest.json: what the bundle is, its formats, its proof in short, and the table of all files.
public struct Manifest: Sendable {
  public struct Model: Equatable, Sendable, Decodable {
    public let name: String
    public let family: String
    public let licence: String
    public let attribution: String?
    public let licenceFiles: [String]?
    public let licenceUrl: String?
  }

  /// For which phone the bundle was made.
  public struct Target: Equatable, Sendable, Decodable {
    public let name: String
    public let title: String
    public let soc: String?
    public let memoryMb: Int?
    public let osFloor: String?
  }

  struct Format: Sendable, Decodable {
    let pipeline: String
  }

  public struct Proof: Equatable, Sendable, Decodable {
    public struct Worst: Equatable, Sendable, Decodable {
      public let subject: String
    }

    public let passed: Bool
    public let worst: Worst?
  }

  /// One recorded call of the original.
  struct GoldenCase: Sendable, Decodable {
    let label: String
    let inputs: [String: ArrayRef]
    let outputs: [String: ArrayRef]
  }

  /// One picture by the original, and all that it takes to draw it again.
  public struct OriginalPicture: Equatable, Sendable, Decodable {
    public let image: String
    public let prompt: String
    public let negativePrompt: String?
    public let seed: String
    public let steps: Int
    public let sampler: String
    public let guidance: Double
  }

  public let model: Model
  public let target: Target
  public let proof: Proof
  public let picture: OriginalPicture?
  public let runtimeID: String
  public let bundleID: String
  public let files: FileTable
  let formats: [String: Format]
  let golden: [String: GoldenCase]
  let conformance: [String]

  private struct Version: Decodable {
    let version: Int
  }

  private struct File: Decodable {
    let model: Model
    let target: Target
    let formats: [String: Format]
    let proof: Proof
    let picture: OriginalPicture?
    let golden: [String: GoldenCase]
    let conformance: [String]
    let runtimeId: String
    let bundleId: String
  }

  /// The version of bundles that this engine reads.
  static let version = 2

  /// Reads the bytes of manifest.json. Throws `wrongVersion`, `refusal` or `contradiction`.
  init(bytes: [UInt8]) throws {
    let path = FileTable.manifest
    let version = try BundleJSON.decode(Version.self, from: bytes, path: path).version
    if version != Self.version { throw EngineError.wrongVersion(found: version, known: Self.version) }
    let file = try BundleJSON.decode(File.self, from: bytes, path: path)
    model = file.model
    target = file.target
    formats = file.formats
    proof = file.proof
    picture = file.picture
    golden = file.golden
    conformance = file.conformance
    runtimeID = file.runtimeId
    bundleID = file.bundleId
    files = try FileTable(manifest: bytes)
    for (name, told, counted) in [("runtime_id", runtimeID, files.runtimeID), ("bundle_id", bundleID, files.bundleID)]
    where told != counted {
      throw EngineError.contradiction(place: "\(path).\(name)", why: "it is not that of the file table")
    }
  }

  /// The names of the formats that the bundle holds.
  public var formatNames: [String] { formats.keys.sorted() }
}
