import CoreML
import Foundation
import OrtRunner
import XCTest

@testable import PocketDiffusion

/// The graphs of an iPhone's bundle, computed by the ONNX bundle of the same model: under Apple's names, in its shapes.
final class AppleGraphs: @unchecked Sendable {  // what is given in the beginning does not change
  private let exact: ModelBundle
  private let exactPipeline: Pipeline
  private let engine: OrtEngine
  private let graphs: [String: PipelineGraph]  // by the name of the package

  init(_ iphone: ModelBundle, exact: ModelBundle, engine: OrtEngine) throws {
    self.exact = exact
    self.engine = engine
    exactPipeline = try exact.pipeline(format: "onnx")
    let pipeline = try iphone.pipeline(format: "coreml")
    graphs = Dictionary(
      uniqueKeysWithValues: pipeline.graphs.values.map { (URL(fileURLWithPath: $0.path).lastPathComponent, $0) })
  }

  /// The model of a package; `change` may alter what it gives, `gap` leaves numbers between rows.
  func model(
    _ package: URL, gap: Int = 0, change: @escaping (String, Values) throws -> Values = { $1 }
  ) throws -> StandIn.Model {
    guard let graph = graphs[package.lastPathComponent] else { throw StandInError("no such package") }
    let runner = try engine.open(exactPipeline.graph(graph.name), of: exact, on: "cpu")
    func told(_ tensors: [TensorSpec]) -> [StandIn.Tensor] {
      tensors.map {
        StandIn.Tensor(name: $0.name, shape: $0.resolved(), dataType: $0.dtype == .int32 ? .int32 : .float32)
      }
    }
    return StandIn.Model(inputs: told(graph.fileSpec.inputs), outputs: told(graph.fileSpec.outputs)) { features in
      var inputs: Values = [:]
      for (spec, file) in zip(graph.spec.inputs, graph.fileSpec.inputs) {
        let given = try XCTUnwrap(features.featureValue(for: file.name)?.multiArrayValue?.tensor)
        inputs[spec.name] = try Self.toSpec(given, spec, graph).converted(to: spec.dtype)
      }
      let made = try change(graph.name, try runner.run(inputs, cancellation: Cancellation()))
      var outputs: [String: MLFeatureValue] = [:]
      for (spec, file) in zip(graph.spec.outputs, graph.fileSpec.outputs) {
        let value = try XCTUnwrap(made[spec.name])
        let turned = try XCTUnwrap(graph.transposes[spec.name].map { value.transposed($0) } ?? value)
        let tensor = try XCTUnwrap(turned.reshaped(file.resolved())).converted(to: file.dtype)
        outputs[file.name] = MLFeatureValue(multiArray: try Self.array(tensor, gap: gap))
      }
      return outputs
    }
  }

  /// The other way round of what the library does: from the file's layout to the pipeline's.
  private static func toSpec(_ given: Tensor, _ spec: TensorSpec, _ graph: PipelineGraph) throws -> Tensor {
    let shape = spec.resolved()
    let order = graph.transposes[spec.name] ?? Array(shape.indices)
    let back = shape.indices.compactMap { order.firstIndex(of: $0) }
    return try XCTUnwrap(given.reshaped(order.map { shape[$0] })?.transposed(back))
  }

  private static func array(_ tensor: Tensor, gap: Int) throws -> MLMultiArray {
    if gap == 0 { return try MLMultiArray(tensor) }
    let array = MLMultiArray(shape: tensor.shape.map { NSNumber(value: $0) }, dataType: .float32, gap: gap)
    let row = (tensor.shape.last ?? 1) * 4
    array.withUnsafeMutableBytes { into, strides in
      for i in 0..<tensor.bytes.count / row {
        let place = i * (row + 4 * gap)
        into[place..<place + row].copyBytes(from: tensor.bytes[i * row..<(i + 1) * row])
      }
    }
    return array
  }
}
