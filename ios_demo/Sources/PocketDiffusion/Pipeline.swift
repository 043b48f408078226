/// pipeline/FORMAT.json: all that changes a picture and is not in a file of its own (docs/BUNDLE.md, section 3).
public struct Pipeline: Sendable {
  public struct Size: Equatable, Sendable, Decodable {
    public let width: Int
    public let height: Int
  }

  /// Both factors are rounded to float32.
  struct VAE: Sendable, Decodable {
    let scalingFactor: Float
    let shiftFactor: Float
    /// In pixels; nil: the picture is decoded as one.
    let tileSize: Int?
    let tileOverlap: Int?
  }

  /// What to draw with where the user says nothing.
  public struct Defaults: Equatable, Sendable, Decodable {
    public let steps: Int
    public let guidance: Double
    public let strength: Double
  }

  /// How a rough picture is made of latents: a row of three numbers for each channel.
  struct Preview: Sendable, Decodable {
    let matrix: [[Double]]
    let bias: [Double]
  }

  public let format: String
  /// In pixels.
  public let picture: Size
  /// [1, channels, height, width]
  public let latents: [Int]
  public let steps: StepIndex
  public let defaults: Defaults
  public let graphs: [String: PipelineGraph]
  let vae: VAE
  /// In which the picture is decoded; nil: as one.
  let tiles: Tiles?
  let tokenizers: [TokenizerIndex]
  let program: Program
  let preview: Preview?

  private struct File: Decodable {
    struct Latents: Decodable {
      let channels: Int
      let height: Int
      let width: Int
      let scale: Int
    }

    let picture: Size
    let latents: Latents
    let vae: VAE
    let tokenizers: [TokenizerIndex]
    let program: Program.File
    let steps: StepIndex
    let defaults: Defaults
    let preview: Preview?
    let graphs: [String: PipelineGraph.File]
  }

  /// Reads the pipeline file of a format. Throws `refusal` for what this engine does not know, `contradiction` for what
  /// cannot be.
  init(format: String, bytes: [UInt8], path: String) throws {
    let file = try BundleJSON.decode(File.self, from: bytes, path: path)
    var graphs: [String: PipelineGraph] = [:]
    for (name, graph) in file.graphs { graphs[name] = try PipelineGraph(name: name, file: graph) }
    self.format = format
    self.graphs = graphs
    picture = file.picture
    latents = [1, file.latents.channels, file.latents.height, file.latents.width]
    vae = file.vae
    tokenizers = file.tokenizers
    program = try Program(file: file.program, specs: graphs.mapValues(\.spec), tokenizers: tokenizers.count)
    tiles = try Tiles(
      size: vae.tileSize, overlap: vae.tileOverlap, latents: latents, scale: file.latents.scale, place: "\(path).vae")
    if let tiles { try program.checkDecoder(tiles, channels: latents[1]) }
    steps = file.steps
    defaults = file.defaults
    preview = file.preview
    if let preview,
      preview.matrix.count != file.latents.channels || !(preview.matrix + [preview.bias]).allSatisfy({ $0.count == 3 })
    {
      throw EngineError.contradiction(place: "\(path).preview", why: "it is not made for \(latents[1]) channels")
    }
  }

  /// Whether the program can start from a picture.
  public var takesPicture: Bool {
    let hosts = program.hosts(tokenizers: tokenizers.count, hasPicture: true)
    return (try? program.variant(Program.encodeImage, hosts: hosts)) != nil
  }

  /// The graphs that a stage calls, in the order of their first calls. Throws `refusal` for a graph that is not there.
  func graphs(of stage: Stage) throws -> [PipelineGraph] {
    var names: [String] = []
    for call in stage.calls where !names.contains(call.graph) { names.append(call.graph) }
    return try names.map(graph)
  }

  /// Throws `refusal` for a graph that is not there.
  func graph(_ name: String) throws -> PipelineGraph {
    guard let graph = graphs[name] else { throw EngineError.refusal(what: "the graph \(name)") }
    return graph
  }
}
