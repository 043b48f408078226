/// Where the columns of a table are: in the file, or a number that stands for a whole column.
struct StepColumns: Sendable, Decodable {
  let columns: [String: Int]
  let constants: [String: Float]

  /// The value of a column in the row at `place`; nil where the column is not here, or the file ends before it.
  func value(_ name: String, place: Int, file: [UInt8]) -> Float? {
    if let constant = constants[name] { return constant }
    guard let begin = columns[name] else { return nil }
    let at = begin + 4 * place
    guard begin >= 0, at + 4 <= file.count else { return nil }
    return Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(file[at + $1]) << (8 * $1) })
  }
}

/// `steps` of the pipeline file: the index of the step tables (docs/BUNDLE.md, section 7).
public struct StepIndex: Sendable, Decodable {
  struct Sampler: Sendable, Decodable {
    let columns: [String: Int]
    let constants: [String: Float]
    /// Rows of the table of 1, 2, 3, ... steps.
    let rows: [Int]
    let initNoiseSigma: [Float]
    let restarts: [StepColumns]
  }

  public let mostSteps: Int
  public let defaultSampler: String
  let file: String
  let samplers: [String: Sampler]

  /// The names of the samplers, in alphabetical order.
  public var samplerNames: [String] { samplers.keys.sorted() }
}

/// One call of the UNet: what it gets, and what is made of its output.
struct StepRow: Sendable {
  let timestep: Float
  let inputScale: Float
  let p: Float
  let q: Float
  let a: Float
  let b: [Float]
  let c: Float
  let signalScale: Float
  let noiseScale: Float

  var usesOutput: Bool { b.contains { $0 != 0 } }
  var drawsNoise: Bool { c != 0 }
}

/// The rows of one run.
struct StepRun: Sendable {
  let rows: [StepRow]
  let initNoiseSigma: Float
}

/// The step tables of all samplers, read from the file that the index names.
struct StepTables: Sendable {
  static let history = 5

  let index: StepIndex
  let file: [UInt8]

  /// The rows of `steps` steps from row `start` on. Throws `refusal` for a sampler or a count without a table.
  func run(_ name: String, steps: Int, start: Int = 0) throws -> StepRun {
    guard let sampler = index.samplers[name] else { throw EngineError.refusal(what: "the sampler \(name)") }
    let isTold = (1...max(index.mostSteps, 1)).contains(steps) && sampler.rows.indices.contains(steps - 1)
    let count = isTold ? sampler.rows[steps - 1] : 0
    if count == 0 { throw EngineError.refusal(what: "\(steps) steps with the sampler \(name)") }
    if start >= count {
      throw EngineError.refusal(what: "\(steps) steps with the sampler \(name) from row \(start) on")
    }
    let first = sampler.rows[..<(steps - 1)].reduce(0, +)
    let own = StepColumns(columns: sampler.columns, constants: sampler.constants)
    let rows = try (start..<count).map { row in
      let restart = sampler.restarts.indices.contains(row - start) ? [sampler.restarts[row - start]] : []
      return try readRow(restart + [own], place: first + row)
    }
    guard sampler.initNoiseSigma.indices.contains(steps - 1) else {
      throw EngineError.contradiction(place: index.file, why: "\(name) has no sigma for \(steps) steps")
    }
    return StepRun(rows: rows, initNoiseSigma: sampler.initNoiseSigma[steps - 1])
  }

  private func readRow(_ holders: [StepColumns], place: Int) throws -> StepRow {
    func value(_ name: String) throws -> Float {
      guard let holder = holders.first(where: { $0.constants[name] != nil || $0.columns[name] != nil }),
        let value = holder.value(name, place: place, file: file)
      else { throw EngineError.contradiction(place: index.file, why: "it has not the whole column \(name)") }
      return value
    }
    return StepRow(
      timestep: try value("timestep"), inputScale: try value("input_scale"), p: try value("p"), q: try value("q"),
      a: try value("a"), b: try (0..<Self.history).map { try value("b\($0)") }, c: try value("c"),
      signalScale: try value("signal_scale"), noiseScale: try value("noise_scale"))
  }
}
