#if canImport(CoreML)
  @preconcurrency import CoreML
  import Foundation

  /// A Core ML model that is loaded. Core ML lets no call be ended: a cancellation waits for the call that is on its way.
  final class CoreMLRunner: GraphRunner {
    private let graph: PipelineGraph
    private let convention: FileConvention
    private let model: MLModel

    /// Throws `engineFailure` where the file's tensors are not those that the manifest promises.
    init(graph: PipelineGraph, model: MLModel) throws {
      self.graph = graph
      self.model = model
      convention = FileConvention(graph)
      try compare("input", graph.fileSpec.inputs, model.modelDescription.inputDescriptionsByName)
      try compare("output", graph.fileSpec.outputs, model.modelDescription.outputDescriptionsByName)
    }

    func run(_ inputs: Values, cancellation: Cancellation) throws -> Values {
      try cancellation.check()
      let sizes = try convention.sizes(of: inputs)
      let given = try convention.toFile(inputs, sizes: sizes)
      let results = try drained { try predict(given) }
      try cancellation.check()
      return try convention.fromFile(results, sizes: sizes)
    }

    private func predict(_ given: Values) throws -> Values {
      let made: any MLFeatureProvider
      do {
        let features = try given.mapValues { MLFeatureValue(multiArray: try MLMultiArray($0)) }
        made = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: features))
      } catch let error as EngineError {
        throw error
      } catch {
        throw EngineError.engineFailure(graph: graph.name, said: error.localizedDescription)
      }
      var results: Values = [:]
      for output in graph.fileSpec.outputs {
        guard let array = made.featureValue(for: output.name)?.multiArrayValue, let tensor = array.tensor else {
          throw EngineError.engineFailure(graph: graph.name, said: "it gave no numbers for \(output.name)")
        }
        results[output.name] = tensor
      }
      return results
    }

    private func compare(_ what: String, _ told: [TensorSpec], _ found: [String: MLFeatureDescription]) throws {
      for tensor in told {
        guard let array = found[tensor.name]?.multiArrayConstraint else {
          throw EngineError.engineFailure(
            graph: graph.name, said: "its file has no \(what) \(tensor.name), which the manifest promises")
        }
        let shape = array.shape.map(\.intValue)  // empty where it is not fixed
        if !shape.isEmpty && shape != tensor.resolved() {
          throw EngineError.engineFailure(
            graph: graph.name, said: "the \(what) \(tensor.name) of its file is \(shape), and not \(tensor)")
        }
      }
    }

    /// Does `work`, and frees what Core ML leaves to the thread's pool, which would last until the drawing's end.
    private func drained<Result>(_ work: () throws -> Result) rethrows -> Result {
      #if canImport(ObjectiveC)
        try autoreleasepool(invoking: work)
      #else
        try work()
      #endif
    }
  }

  extension MLMultiArray {
    /// Copies a tensor; of integers of 64 bits and bytes Core ML has no arrays: they become int32.
    convenience init(_ tensor: Tensor) throws {
      let type: MLMultiArrayDataType
      let value: Tensor
      switch tensor.dtype {
      case .float32: (type, value) = (.float32, tensor)
      case .float16: (type, value) = (.float16, tensor)
      case .int32, .int64, .uint8: (type, value) = (.int32, tensor.converted(to: .int32))
      }
      try self.init(shape: value.shape.map { NSNumber(value: $0) }, dataType: type)
      withUnsafeMutableBytes { into, strides in
        eachRow(value.shape, strides: strides, size: value.dtype.size) { from, place, count in
          into[place..<place + count].copyBytes(from: value.bytes[from..<from + count])
        }
      }
    }

    /// The numbers in C order: a unit may leave gaps between rows. Nil for doubles.
    var tensor: Tensor? {
      let dtype: DType
      switch dataType {
      case .float32: dtype = .float32
      case .float16: dtype = .float16
      case .int32: dtype = .int32
      default: return nil
      }
      let shape = self.shape.map(\.intValue)
      var bytes = [UInt8](repeating: 0, count: shape.reduce(dtype.size, *))
      withUnsafeBytes { from in
        eachRow(shape, strides: strides.map(\.intValue), size: dtype.size) { place, begin, count in
          bytes.replaceSubrange(place..<place + count, with: from[begin..<begin + count])
        }
      }
      return Tensor(dtype: dtype, shape: shape, bytes: bytes)
    }
  }

  /// Walks over an array in pieces that lie without a gap: tells where each is in C order and in memory, and its size, all
  /// in bytes. `strides` count numbers of `size` bytes.
  private func eachRow(_ shape: [Int], strides: [Int], size: Int, _ row: (Int, Int, Int) -> Void) {
    guard !shape.contains(0) else { return }
    var run = 1  // numbers of a piece
    var axes = shape.count
    while axes > 0, shape[axes - 1] == 1 || strides[axes - 1] == run {
      run *= shape[axes - 1]
      axes -= 1
    }
    var place = [Int](repeating: 0, count: axes)
    for piece in 0..<shape[..<axes].reduce(1, *) {
      let begin = zip(place, strides).reduce(0) { $0 + $1.0 * $1.1 }
      row(piece * run * size, begin * size, run * size)
      for axis in (0..<axes).reversed() {
        place[axis] += 1
        if place[axis] < shape[axis] { break }
        place[axis] = 0
      }
    }
  }
#endif
