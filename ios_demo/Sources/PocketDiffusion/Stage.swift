/// An array in a file of its own: little-endian, C order, nothing else.
public struct ArrayRef: Equatable, Sendable, Decodable {
  public let path: String
  public let dtype: DType
  public let shape: [Int]
}

/// What an input of a call is made of.
enum Source: Sendable {
  case value(String)
  case concat([String], axis: Int)
  case sum([String])
  case constant(ArrayRef)

  /// The names of the values that it takes.
  var names: [String] {
    switch self {
    case .value(let name): [name]
    case .concat(let names, _), .sum(let names): names
    case .constant: []
    }
  }
}

extension Source: Decodable {
  private enum Keys: String, CodingKey { case concat, axis, sum, constant }

  init(from decoder: any Decoder) throws {
    if let name = try? decoder.singleValueContainer().decode(String.self) {
      self = .value(name)
      return
    }
    let object = try decoder.container(keyedBy: Keys.self)
    if object.contains(.concat) {
      self = .concat(
        try object.decode([String].self, forKey: .concat), axis: try object.decode(Int.self, forKey: .axis))
    } else if object.contains(.sum) {
      self = .sum(try object.decode([String].self, forKey: .sum))
    } else if object.contains(.constant) {
      self = .constant(try object.decode(ArrayRef.self, forKey: .constant))
    } else {
      throw EngineError.refusal(what: "an input of a kind of its own")
    }
  }
}

/// One call of a graph: what its inputs are, and which values its outputs become.
struct Call: Sendable, Decodable {
  let graph: String
  let inputs: [String: Source]
  let outputs: [String: String]
}

/// Calls that are made in order, where every host value in `when` is there.
struct Stage: Sendable, Decodable {
  let stage: String
  let when: [String]?
  let required: Bool?
  let calls: [Call]

  /// The names of the values that its calls make.
  var made: Set<String> { Set(calls.flatMap(\.outputs.values)) }
}
