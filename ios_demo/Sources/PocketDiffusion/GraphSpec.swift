/// The length of an axis: a number, or a name where the caller chooses it.
public enum Axis: Equatable, Sendable {
  case length(Int)
  case free(String)
}

extension Axis: Decodable {
  public init(from decoder: any Decoder) throws {
    let value = try decoder.singleValueContainer()
    if let name = try? value.decode(String.self) {
      self = .free(name)
    } else {
      self = .length(try value.decode(Int.self))
    }
  }
}

/// One input or output of a graph.
public struct TensorSpec: Equatable, Sendable, Decodable {
  public let name: String
  public let shape: [Axis]
  public let dtype: DType

  /// The shape where free axes have the lengths `sizes`, and 1 where that has none.
  public func resolved(_ sizes: [String: Int] = [:]) -> [Int] {
    shape.map { axis in
      switch axis {
      case .length(let length): length
      case .free(let name): sizes[name] ?? 1
      }
    }
  }

  /// Whether the caller chooses the first axis.
  var isFirstAxisFree: Bool {
    if case .free = shape.first { true } else { false }
  }
}

extension TensorSpec: CustomStringConvertible {
  public var description: String {
    let axes = shape.map { axis in
      switch axis {
      case .length(let length): "\(length)"
      case .free(let name): name
      }
    }
    return "\(name) \(dtype)[\(axes.joined(separator: ", "))]"
  }
}

/// The inputs and outputs of a graph, in the file's order.
public struct GraphSpec: Equatable, Sendable, Decodable {
  public let inputs: [TensorSpec]
  public let outputs: [TensorSpec]

  func input(_ name: String) -> TensorSpec? { inputs.first { $0.name == name } }

  func output(_ name: String) -> TensorSpec? { outputs.first { $0.name == name } }
}
