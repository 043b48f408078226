import COrt
import Foundation
import PocketDiffusion

/// onnxruntime on the CPU, for tests of the engine on Linux.
public final class OrtEngine: GraphEngine {
  public let name = "onnxruntime"
  public let format = "onnx"
  public let units = ["cpu"]
  private let library: OrtLibrary
  private let threads: Int32

  /// Opens the library at `path`, such as the Python wheel's onnxruntime/capi/libonnxruntime.so.1.32.0. Throws
  /// `engineFailure`.
  public init(library path: String, threads: Int32 = 1) throws {
    do {
      library = try OrtLibrary(path: path)
    } catch let error as OrtFailure {
      throw EngineError.engineFailure(graph: path, said: error.said)
    }
    self.threads = threads
  }

  public var version: String { library.version }

  public func arithmetic(of graph: PipelineGraph, on unit: String) -> String { graph.arithmetic }

  public func open(_ graph: PipelineGraph, of bundle: ModelBundle, on unit: String) throws -> any GraphRunner {
    for file in graph.files { _ = try bundle.locate(file) }
    let path = try bundle.locate(graph.path).path
    do {
      return OrtRunner(graph: graph, session: try OrtSession(library, path: path, threads: threads))
    } catch let error as OrtFailure {
      throw EngineError.engineFailure(graph: graph.name, said: error.said)
    }
  }
}

/// An open session, by the convention of the graph's `spec`.
private final class OrtRunner: GraphRunner {
  private let graph: PipelineGraph
  private let convention: FileConvention
  private let session: OrtSession

  init(graph: PipelineGraph, session: OrtSession) {
    self.graph = graph
    self.session = session
    convention = FileConvention(graph)
  }

  func run(_ inputs: Values, cancellation: Cancellation) throws -> Values {
    let sizes = try convention.sizes(of: inputs)
    do {
      let results = try session.run(
        try convention.toFile(inputs, sizes: sizes),
        outputs: graph.fileSpec.outputs.map { ($0.name, $0.dtype, $0.resolved(sizes)) }, cancellation: cancellation)
      return try convention.fromFile(results, sizes: sizes)
    } catch let error as OrtFailure {
      try cancellation.check()  // only its words would tell this error from others
      throw EngineError.engineFailure(graph: graph.name, said: error.said)
    }
  }
}
