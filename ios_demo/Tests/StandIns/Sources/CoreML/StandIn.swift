import Foundation

/// What a test gives to the stand-in models, and what it sees of them.
public enum StandIn {
  public struct Tensor: Sendable {
    public let name: String
    public let shape: [Int]
    public let dataType: MLMultiArrayDataType

    public init(name: String, shape: [Int], dataType: MLMultiArrayDataType) {
      self.name = name
      self.shape = shape
      self.dataType = dataType
    }
  }

  /// What a package is and computes.
  public struct Model {
    public let inputs: [Tensor]
    public let outputs: [Tensor]
    public let predict: (any MLFeatureProvider) throws -> [String: MLFeatureValue]

    public init(
      inputs: [Tensor], outputs: [Tensor],
      predict: @escaping (any MLFeatureProvider) throws -> [String: MLFeatureValue]
    ) {
      self.inputs = inputs
      self.outputs = outputs
      self.predict = predict
    }
  }

  private final class State: @unchecked Sendable {  // `lock` guards all
    let lock = NSLock()
    var make: @Sendable (URL, MLComputeUnits) throws -> Model = { _, _ in throw StandInError("no model is given") }
    var compiled: [String] = []
    var loaded: [String] = []
    var open = 0
    var mostOpen = 0
  }

  private static let state = State()

  /// Makes the model of a package, such as .../Unet.mlpackage, on a unit. Sets what was seen back to nothing.
  public static func give(_ make: @escaping @Sendable (URL, MLComputeUnits) throws -> Model) {
    state.lock.withLock {
      state.make = make
      state.compiled = []
      state.loaded = []
      state.mostOpen = state.open
    }
  }

  /// The packages that were compiled, by their names, in order.
  public static var compiled: [String] { state.lock.withLock { state.compiled } }

  /// The packages that were loaded, each with its units.
  public static var loaded: [String] { state.lock.withLock { state.loaded } }

  /// How many models are there now, and were at most.
  public static var open: Int { state.lock.withLock { state.open } }
  public static var mostOpen: Int { state.lock.withLock { state.mostOpen } }

  /// Compiles a package: a folder that says where it came from.
  static func compile(_ package: URL) throws -> URL {
    guard FileManager.default.fileExists(atPath: package.appendingPathComponent("Manifest.json").path) else {
      throw StandInError("\(package.lastPathComponent) is not a package")
    }
    let compiled = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).mlmodelc")
    try FileManager.default.createDirectory(at: compiled, withIntermediateDirectories: true)
    try Data(package.path.utf8).write(to: compiled.appendingPathComponent("source"))
    state.lock.withLock { state.compiled.append(package.lastPathComponent) }
    return compiled
  }

  static func load(_ compiled: URL, units: MLComputeUnits) throws -> Model {
    guard let source = try? String(contentsOf: compiled.appendingPathComponent("source"), encoding: .utf8) else {
      throw StandInError("\(compiled.lastPathComponent) cannot be loaded")
    }
    let package = URL(fileURLWithPath: source)
    state.lock.withLock { state.loaded.append("\(package.lastPathComponent) \(units)") }
    return try state.lock.withLock { state.make }(package, units)
  }

  /// A model that is there.
  final class Token {
    init(_ url: URL) {
      StandIn.state.lock.withLock {
        StandIn.state.open += 1
        StandIn.state.mostOpen = max(StandIn.state.mostOpen, StandIn.state.open)
      }
    }

    deinit { StandIn.state.lock.withLock { StandIn.state.open -= 1 } }
  }
}

public struct StandInError: LocalizedError {
  public let errorDescription: String?

  public init(_ said: String) { errorDescription = said }
}
