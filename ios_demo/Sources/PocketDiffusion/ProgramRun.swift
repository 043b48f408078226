/// Runs the stages of a program: one loop for every model.
struct ProgramRun {
  let pipeline: Pipeline
  /// The program's own arrays, by their paths.
  let constants: Values
  /// Opens a graph, or has it open.
  let graphs: (PipelineGraph) throws -> any GraphRunner
  let cancellation: Cancellation

  /// Makes the calls of a stage, in order. `halves` has the values that each half of guidance begins with; the answer
  /// has those that were made for each. A call of values that the halves share is made once; with `stacked` the others
  /// too, with the halves along the first axis.
  func run(_ stage: Stage, halves: [Values], stacked: Bool = false) throws -> [Values] {
    var all = halves
    for (call, dependent) in zip(stage.calls, pipeline.program.dependsOnHalf(stage)) {
      try cancellation.check()
      let results = try run(call, halves: all, isShared: dependent.isEmpty, stacked: stacked)
      for (output, value) in call.outputs {
        for (half, result) in results.enumerated() { all[half][value] = result[output] }
      }
    }
    let names = stage.made
    return all.map { values in values.filter { names.contains($0.key) } }
  }

  /// What a stage would make, as zeros of their shapes.
  func zeros(_ stage: Stage) throws -> Values {
    var made: Values = [:]
    for call in stage.calls {
      for (output, value) in call.outputs {
        guard let tensor = try pipeline.graph(call.graph).spec.output(output) else { continue }
        made[value] = Tensor(zeros: tensor.resolved(), dtype: tensor.dtype)
      }
    }
    return made
  }

  /// What a call makes for each half.
  private func run(_ call: Call, halves: [Values], isShared: Bool, stacked: Bool) throws -> [Values] {
    let graph = try pipeline.graph(call.graph)
    let runner = try graphs(graph)
    func inputs(_ half: Values) throws -> Values {
      var inputs: Values = [:]
      for input in graph.spec.inputs { inputs[input.name] = try value(of: call.inputs[input.name], in: half) }
      return inputs
    }
    if isShared {
      let one = try runner.run(inputs(halves[0]), cancellation: cancellation)
      return halves.map { _ in one }
    }
    if !stacked || halves.count == 1 {
      return try halves.map { half in
        try cancellation.check()
        return try runner.run(inputs(half), cancellation: cancellation)
      }
    }
    let results = try runner.run(stack(graph.spec, halves.map(inputs)), cancellation: cancellation)
    return try cut(results, parts: halves.count, of: graph)
  }

  private func value(of source: Source?, in values: Values) throws -> Tensor {
    func get(_ name: String) throws -> Tensor {
      guard let value = values[name] else {
        throw EngineError.refusal(what: "the host value \(name), which is not given here")
      }
      return value
    }
    let made: Tensor?
    switch source {
    case .value(let name): return try get(name)
    case .constant(let ref): made = constants[ref.path]
    case .concat(let names, let axis): made = Tensor.concat(try names.map(get), axis: axis)
    case .sum(let names): made = Tensor.sum(try names.map(get))
    case nil: made = nil
    }
    guard let made else {
      throw EngineError.refusal(what: "values that do not fit together, \(source?.names ?? [])")
    }
    return made
  }

  private func stack(_ spec: GraphSpec, _ halves: [Values]) throws -> Values {
    var stacked: Values = [:]
    for input in spec.inputs {
      let each = halves.compactMap { $0[input.name] }
      guard let value = input.isFirstAxisFree ? Tensor.concat(each, axis: 0) : each.first else {
        throw EngineError.refusal(what: "halves of \(input.name) that differ in shape")
      }
      stacked[input.name] = value
    }
    return stacked
  }

  private func cut(_ results: Values, parts: Int, of graph: PipelineGraph) throws -> [Values] {
    var halves = [Values](repeating: [:], count: parts)
    for (name, value) in results {
      guard let each = value.cut(parts) else {
        throw EngineError.engineFailure(graph: graph.name, said: "it gave no \(parts) halves of \(name)")
      }
      for (half, part) in each.enumerated() { halves[half][name] = part }
    }
    return halves
  }
}
