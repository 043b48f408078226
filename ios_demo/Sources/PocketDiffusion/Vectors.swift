import Foundation

/// A case of a conformance vector: what is given, and what the original libraries made of it.
struct VectorCase: Sendable {
  let label: String
  let texts: [String: String]
  let numbers: [String: Double]
  let arrays: Values
  let expected: Values

  func text(_ name: String) throws -> String { try given(texts[name], name) }

  func number(_ name: String) throws -> Double { try given(numbers[name], name) }

  /// The array of a name, which has to be of a dtype.
  func array(_ name: String, _ dtype: DType = .float32) throws -> Tensor {
    let array = try given(arrays[name], name)
    if array.dtype != dtype { throw EngineError.contradiction(place: label, why: "\(name) is not a \(dtype)") }
    return array
  }

  func ints(_ name: String) throws -> [Int] { try array(name, .int32).ints.map(Int.init) }

  func floats(_ name: String) throws -> [Float] { try array(name).floats }

  private func given<Value>(_ value: Value?, _ name: String) throws -> Value {
    guard let value else { throw EngineError.contradiction(place: label, why: "the vector gives no \(name)") }
    return value
  }
}

/// A conformance vector (docs/BUNDLE.md, section 12); `tells` is what is wrong in an engine that fails it.
struct Vector: Sendable {
  let name: String
  let kind: String
  let tells: String
  let floorDb: Double
  let cases: [VectorCase]
}

/// The bundle's conformance vectors, and how this engine meets them.
struct Vectors {
  private static let equalDb = 200.0
  /// Kinds whose arrays have a row for each of several runs.
  private static let rowByRow: Set = ["start", "run"]

  let all: [Vector]
  private let answers: VectorAnswers

  private struct Place: Decodable {
    let offset: Int
    let dtype: DType
    let shape: [Int]
  }

  private struct File: Decodable {
    struct Case: Decodable {
      let label: String
      let texts: [String: String]
      let numbers: [String: Double]
      let arrays: [String: Place]
      let expected: [String: Place]
    }

    struct Vector: Decodable {
      let name: String
      let kind: String
      let tells: String
      let floorDb: Double
      let cases: [Case]
    }

    let vectors: [Vector]
  }

  init(_ generator: Generator) throws {
    answers = VectorAnswers(generator)
    let bundle = generator.bundle
    let paths = bundle.manifest.conformance
    guard let index = paths.first(where: { $0.hasSuffix(".json") }),
      let file = paths.first(where: { $0.hasSuffix(".bin") })
    else { throw EngineError.contradiction(place: FileTable.manifest, why: "it names no conformance vectors") }
    let bytes = try bundle.read(file)
    func read(_ arrays: [String: Place]) throws -> Values {
      try arrays.mapValues { array in
        let size = array.shape.reduce(Double(array.dtype.size)) { $0 * Double($1) }
        guard array.offset >= 0, size >= 0, Double(array.offset) + size <= Double(bytes.count) else {
          throw EngineError.contradiction(place: file, why: "it ends before an array of \(index)")
        }
        let slice = bytes[array.offset..<array.offset + Int(size)]
        return try Tensor(file: slice, dtype: array.dtype, shape: array.shape, place: file)
      }
    }
    all = try bundle.json(File.self, index).vectors.map { vector in
      let cases = try vector.cases.map {
        VectorCase(
          label: $0.label, texts: $0.texts, numbers: $0.numbers, arrays: try read($0.arrays),
          expected: try read($0.expected))
      }
      return Vector(
        name: vector.name, kind: vector.kind, tells: vector.tells, floorDb: vector.floorDb, cases: cases)
    }
  }

  func judge(_ vector: Vector) -> Verdict {
    func failed(_ note: String, _ db: Double = -.infinity) -> Verdict {
      Verdict(subject: vector.name, psnrDb: db, floorDb: vector.floorDb, note: note)
    }
    var least = Double.infinity
    for one in vector.cases {
      do {
        guard let made = try answers.answer(vector.kind, one) else {
          return failed("this app is too old for the kind \(vector.kind)")
        }
        for (name, expected) in one.expected {
          let db = Self.compare(vector, expected, made[name])
          if db < vector.floorDb { return failed("\(one.label), \(name): \(vector.tells)", db) }
          least = min(least, db)
        }
      } catch {
        return failed("\(one.label): \(error.localizedDescription)")
      }
    }
    return Verdict(subject: vector.name, psnrDb: least, floorDb: vector.floorDb)
  }

  /// The least dB of the array, or of its rows where these are compared each by itself.
  private static func compare(_ vector: Vector, _ expected: Tensor, _ made: Tensor?) -> Double {
    guard let made, made.dtype == expected.dtype, made.shape == expected.shape else { return -.infinity }
    let (wanted, found) = (expected.converted(to: .float32).floats, made.converted(to: .float32).floats)
    let rows = rowByRow.contains(vector.kind) ? expected.shape[0] : 1
    let width = wanted.count / max(rows, 1)
    let all = (0..<rows).map { row in
      compare(wanted[row * width..<(row + 1) * width], found[row * width..<(row + 1) * width], vector.floorDb)
    }
    return all.min() ?? .infinity
  }

  /// dB, or minus infinity where the largest difference is more than ten times what the floor allows.
  private static func compare(_ expected: ArraySlice<Float>, _ made: ArraySlice<Float>, _ floor: Double) -> Double {
    let largest = expected.map { Double(abs($0)) }.max() ?? 0
    let peak = largest > 0 ? largest : 1
    let worst = zip(expected, made).map { abs(Double($0) - Double($1)) }.max() ?? 0
    let isTooFar = worst > 10 * peak * pow(10, -floor / 20) || floor >= equalDb && worst > 0
    if isTooFar || !made.allSatisfy(\.isFinite) { return -.infinity }
    return Compare.psnr([Float](expected), [Float](made), peak: peak)
  }
}
