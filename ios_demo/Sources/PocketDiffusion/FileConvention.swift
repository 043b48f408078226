/// Between the pipeline's own convention (`spec`) and that of a graph's file (`file_spec`, `transposes`; docs/BUNDLE.md,
/// section 5). Every engine gives and takes the file's tensors; this is the rest.
public struct FileConvention: Sendable {
  private let graph: PipelineGraph

  public init(_ graph: PipelineGraph) { self.graph = graph }

  /// The lengths of the free axes, which the inputs choose. Throws `engineFailure` for inputs that do not fit.
  public func sizes(of inputs: Values) throws -> [String: Int] {
    var sizes: [String: Int] = [:]
    for told in graph.spec.inputs {
      guard let given = inputs[told.name] else { throw fail("the input \(told.name) is missing") }
      let fits =
        given.dtype == told.dtype && given.shape.count == told.shape.count
        && zip(told.shape, given.shape).allSatisfy { axis, length in
          switch axis {
          case .length(let wanted): return length == wanted
          case .free(let name):
            if sizes[name] == nil { sizes[name] = length }
            return sizes[name] == length
          }
        }
      if !fits { throw fail("it takes \(told), and not \(given.dtype)\(given.shape)") }
    }
    return sizes
  }

  /// The file's inputs by their names there.
  public func toFile(_ inputs: Values, sizes: [String: Int]) throws -> Values {
    var values: Values = [:]
    for (told, file) in zip(graph.spec.inputs, graph.fileSpec.inputs) {
      let given = inputs[told.name]
      let turned = graph.transposes[told.name].map { order in given?.transposed(order) } ?? given
      guard let value = turned?.reshaped(file.resolved(sizes)) else { throw mismatch(told) }
      values[file.name] = value.converted(to: file.dtype)
    }
    return values
  }

  /// The outputs by the names of `spec`, of the file's by their names there. Throws `notFinite`.
  public func fromFile(_ results: Values, sizes: [String: Int]) throws -> Values {
    var values: Values = [:]
    for (told, file) in zip(graph.spec.outputs, graph.fileSpec.outputs) {
      let shape = told.resolved(sizes)
      let order = graph.transposes[told.name] ?? Array(shape.indices)
      guard order.sorted() == Array(shape.indices) else { throw mismatch(told) }
      let back = shape.indices.compactMap { order.firstIndex(of: $0) }
      let permuted = results[file.name]?.reshaped(order.map { shape[$0] })
      guard let value = permuted?.transposed(back)?.converted(to: told.dtype) else { throw mismatch(told) }
      if !value.isFinite { throw EngineError.notFinite(graph: graph.name, output: told.name) }
      values[told.name] = value
    }
    return values
  }

  private func mismatch(_ told: TensorSpec) -> EngineError {
    fail("its file has not the layout that the manifest says of \(told)")
  }

  private func fail(_ why: String) -> EngineError { .engineFailure(graph: graph.name, said: why) }
}
