import Foundation

// A stand-in for Apple's Core ML: the declarations that the library uses, with the signatures of Apple's documentation,
// and models that compute by what a test gives to `StandIn`.

public enum MLComputeUnits: Int, Sendable {
  case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

public final class MLModelConfiguration {
  public var computeUnits = MLComputeUnits.all

  public init() {}
}

public enum MLMultiArrayDataType: Int, Sendable {
  case double = 65600
  case float32 = 65568
  case float16 = 65552
  case int32 = 131104

  var size: Int {
    switch self {
    case .double: 8
    case .float32, .int32: 4
    case .float16: 2
    }
  }
}

public class MLMultiArray {
  public let shape: [NSNumber]
  public let dataType: MLMultiArrayDataType
  public let strides: [NSNumber]
  private let bytes: UnsafeMutableRawBufferPointer

  public required convenience init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {
    self.init(shape: shape, dataType: dataType, gap: 0)
  }

  /// An array of zeros with `gap` numbers behind each row, as the Neural Engine leaves them.
  public required init(shape: [NSNumber], dataType: MLMultiArrayDataType, gap: Int) {
    self.shape = shape
    self.dataType = dataType
    var strides: [Int] = []
    var stride = 1
    for (behind, length) in shape.map(\.intValue).reversed().enumerated() {
      strides.insert(stride, at: 0)
      stride = stride * length + (behind == 0 ? gap : 0)
    }
    self.strides = strides.map { NSNumber(value: $0) }
    bytes = .allocate(byteCount: max(stride * dataType.size, 1), alignment: 16)
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { bytes.deallocate() }

  public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    try body(UnsafeRawBufferPointer(bytes))
  }

  public func withUnsafeMutableBytes<Result>(
    _ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> Result
  ) rethrows -> Result {
    try body(bytes, strides.map(\.intValue))
  }
}

public final class MLFeatureValue {
  public let multiArrayValue: MLMultiArray?

  public init(multiArray value: MLMultiArray) { multiArrayValue = value }
}

public protocol MLFeatureProvider {
  var featureNames: Set<String> { get }
  func featureValue(for featureName: String) -> MLFeatureValue?
}

public final class MLDictionaryFeatureProvider: MLFeatureProvider {
  private let values: [String: MLFeatureValue]

  public init(dictionary: [String: Any]) throws {
    values = try dictionary.mapValues { value in
      guard let value = value as? MLFeatureValue else { throw StandInError("a feature of another type") }
      return value
    }
  }

  public var featureNames: Set<String> { Set(values.keys) }

  public func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

public final class MLMultiArrayConstraint {
  public let shape: [NSNumber]
  public let dataType: MLMultiArrayDataType

  init(shape: [Int], dataType: MLMultiArrayDataType) {
    self.shape = shape.map { NSNumber(value: $0) }
    self.dataType = dataType
  }
}

public final class MLFeatureDescription {
  public let multiArrayConstraint: MLMultiArrayConstraint?

  init(_ tensor: StandIn.Tensor) {
    multiArrayConstraint = MLMultiArrayConstraint(shape: tensor.shape, dataType: tensor.dataType)
  }
}

public final class MLModelDescription {
  public let inputDescriptionsByName: [String: MLFeatureDescription]
  public let outputDescriptionsByName: [String: MLFeatureDescription]

  init(_ model: StandIn.Model) {
    func described(_ all: [StandIn.Tensor]) -> [String: MLFeatureDescription] {
      Dictionary(uniqueKeysWithValues: all.map { ($0.name, MLFeatureDescription($0)) })
    }
    inputDescriptionsByName = described(model.inputs)
    outputDescriptionsByName = described(model.outputs)
  }
}

public class MLModel {
  public let configuration: MLModelConfiguration
  public let modelDescription: MLModelDescription
  private let model: StandIn.Model
  private let token: StandIn.Token

  public init(contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()) throws {
    self.configuration = configuration
    model = try StandIn.load(url, units: configuration.computeUnits)
    modelDescription = MLModelDescription(model)
    token = StandIn.Token(url)
  }

  public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
    let lacking = model.inputs.map(\.name).filter { input.featureValue(for: $0) == nil }
    if let first = lacking.first { throw StandInError("the feature \(first) is missing") }
    for tensor in model.inputs {
      let given = input.featureValue(for: tensor.name)?.multiArrayValue
      if given?.shape.map(\.intValue) != tensor.shape || given?.dataType != tensor.dataType {
        throw StandInError("the feature \(tensor.name) has another shape or type")
      }
    }
    return try MLDictionaryFeatureProvider(dictionary: try model.predict(input))
  }

  public class func compileModel(
    at modelURL: URL, completionHandler handler: @escaping @Sendable (Result<URL, any Error>) -> Void
  ) {
    DispatchQueue.global().async { handler(Result { try StandIn.compile(modelURL) }) }
  }
}
