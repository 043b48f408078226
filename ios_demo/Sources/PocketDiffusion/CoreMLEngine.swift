#if canImport(CoreML)
  @preconcurrency import CoreML
  import Foundation

  /// Core ML. A package is compiled on the device once, and loaded on the one unit that is asked for: with the CPU, which
  /// takes what the unit cannot. The first load on the Neural Engine can take minutes; the system keeps what it made.
  public final class CoreMLEngine: GraphEngine {
    public let name = "coreml"
    public let format = "coreml"
    public let units: [String]
    /// Core ML's version is the system's.
    public let version: String
    private let compiled: CompiledModels

    /// Keeps compiled models in the folder `compiled`, which lies outside of bundles: best in Caches. `units` are those of
    /// this device: cpu, gpu, ane.
    public init(
      compiled: URL, units: [String] = CoreMLEngine.unitsHere, version: String = CoreMLEngine.system
    ) {
      self.compiled = CompiledModels(folder: compiled)
      self.units = units
      self.version = version
    }

    /// The simulator has the CPU alone.
    public static var unitsHere: [String] {
      #if targetEnvironment(simulator)
        ["cpu"]
      #else
        ["cpu", "gpu", "ane"]
      #endif
    }

    public static var system: String {
      let system = ProcessInfo.processInfo.operatingSystemVersion
      return "\(system.majorVersion).\(system.minorVersion)"
    }

    /// The Neural Engine computes in float16 whatever the file says.
    public func arithmetic(of graph: PipelineGraph, on unit: String) -> String {
      unit == "ane" && graph.arithmetic == "float32" ? "float16" : graph.arithmetic
    }

    public func open(_ graph: PipelineGraph, of bundle: ModelBundle, on unit: String) throws -> any GraphRunner {
      let configuration = MLModelConfiguration()
      switch unit {
      case "cpu": configuration.computeUnits = .cpuOnly
      case "gpu": configuration.computeUnits = .cpuAndGPU
      case "ane": configuration.computeUnits = .cpuAndNeuralEngine
      default: throw EngineError.unitNotHere(graph: graph.name, unit: unit, engine: name)
      }
      for file in graph.files { _ = try bundle.locate(file) }
      let files = Self.digests(graph, of: bundle)
      let package = bundle.folder.appendingPathComponent(graph.path)
      func load() throws -> MLModel {
        let place = try compiled.find(package, graph: graph.name, files: files, system: version)
        return try MLModel(contentsOf: place, configuration: configuration)
      }
      do {
        return try CoreMLRunner(graph: graph, model: load())
      } catch let error as EngineError {
        throw error
      } catch {  // what was kept may be damaged or of another system: once more from the package
        compiled.remove(files: files, system: version)
        do {
          return try CoreMLRunner(graph: graph, model: load())
        } catch let error as EngineError {
          throw error
        } catch {
          throw EngineError.engineFailure(graph: graph.name, said: error.localizedDescription)
        }
      }
    }

    /// A bundle whose pipeline cannot be read is passed over: its models are compiled again when they are needed.
    public func keepOnly(for bundles: [ModelBundle]) {
      let files = bundles.flatMap { bundle in
        (try? bundle.pipeline(format: format))?.graphs.values.map { Self.digests($0, of: bundle) } ?? []
      }
      compiled.removeAll(but: files, system: version)
    }

    /// The name and the sha256 of each file of a graph: what its compiled form is kept by.
    private static func digests(_ graph: PipelineGraph, of bundle: ModelBundle) -> [String] {
      graph.files.map { "\($0) \(bundle.manifest.files[$0]?.sha256 ?? "")" }
    }
  }
#endif
