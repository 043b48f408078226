/// Values by their names.
public typealias Values = [String: Tensor]

/// The types of numbers in files and tensors, by numpy's names.
public enum DType: String, Sendable {
  case float32, float16, int32, int64, uint8

  /// The bytes of one number.
  public var size: Int {
    switch self {
    case .float32, .int32: 4
    case .float16: 2
    case .int64: 8
    case .uint8: 1
    }
  }

  var isFloat: Bool { self == .float32 || self == .float16 }
}

extension DType: Decodable {
  public init(from decoder: any Decoder) throws {
    let name = try decoder.singleValueContainer().decode(String.self)
    guard let dtype = DType(rawValue: name) else { throw EngineError.refusal(what: "the dtype \(name)") }
    self = dtype
  }
}

/// An array in C order. Its numbers lie in the machine's own order, which is little-endian on every phone.
public struct Tensor: Equatable, Sendable {
  public let dtype: DType
  public let shape: [Int]
  /// `count` numbers of `dtype.size` bytes each.
  public let bytes: [UInt8]

  /// Takes the bytes as they are.
  public init(dtype: DType, shape: [Int], bytes: [UInt8]) {
    precondition(bytes.count == shape.reduce(dtype.size, *), "\(bytes.count) bytes for \(dtype)\(shape)")
    self.dtype = dtype
    self.shape = shape
    self.bytes = bytes
  }

  public init(_ values: [Float], shape: [Int]) { self.init(dtype: .float32, numbers: values, shape: shape) }

  public init(_ values: [Int32], shape: [Int]) { self.init(dtype: .int32, numbers: values, shape: shape) }

  public init(zeros shape: [Int], dtype: DType) {
    self.init(dtype: dtype, shape: shape, bytes: [UInt8](repeating: 0, count: shape.reduce(dtype.size, *)))
  }

  /// Reads an array of a file: little-endian, C order. Throws `contradiction`, which names `place`.
  public init(file: ArraySlice<UInt8>, dtype: DType, shape: [Int], place: String) throws {
    let size = shape.reduce(Double(dtype.size)) { $0 * Double($1) }  // in Double it cannot overflow
    guard shape.allSatisfy({ $0 >= 0 }), Double(file.count) == size else {
      throw EngineError.contradiction(
        place: place, why: "it has \(file.count) bytes, not those of \(dtype) of the shape \(shape)")
    }
    self.init(dtype: dtype, shape: shape, bytes: Array(file))
  }

  private init<Number>(dtype: DType, numbers: [Number], shape: [Int]) {
    self.init(dtype: dtype, shape: shape, bytes: numbers.withUnsafeBytes { Array($0) })
  }

  public var count: Int { shape.reduce(1, *) }

  /// The numbers of a float32 tensor.
  public var floats: [Float] {
    precondition(dtype == .float32, "\(dtype) is not float32")
    return numbers()
  }

  /// The numbers of an int32 tensor.
  public var ints: [Int32] {
    precondition(dtype == .int32, "\(dtype) is not int32")
    return numbers()
  }

  private func numbers<Number>() -> [Number] {
    bytes.withUnsafeBytes { Array($0.bindMemory(to: Number.self)) }
  }

  /// Whether no value is NaN or infinite.
  public var isFinite: Bool {
    switch dtype {
    case .float32: (numbers() as [Float]).allSatisfy(\.isFinite)
    case .float16: (numbers() as [Float16]).allSatisfy(\.isFinite)
    case .int32, .int64, .uint8: true
    }
  }

  /// The same numbers in another shape of the same size; nil where the sizes differ.
  func reshaped(_ shape: [Int]) -> Tensor? {
    guard shape.reduce(1, *) == count else { return nil }
    return Tensor(dtype: dtype, shape: shape, bytes: bytes)
  }

  /// Converts: floats to integers are cut, floats to float16 rounded half to even, beyond its end to infinity.
  func converted(to dtype: DType) -> Tensor {
    if dtype == self.dtype { return self }
    switch self.dtype {
    case .float32: return converted(numbers() as [Float], to: dtype)
    case .float16: return converted((numbers() as [Float16]).map(Float.init), to: dtype)
    case .int32: return converted((numbers() as [Int32]).map(Int64.init), to: dtype)
    case .int64: return converted(numbers() as [Int64], to: dtype)
    case .uint8: return converted(bytes.map(Int64.init), to: dtype)
    }
  }

  private func converted(_ values: [Float], to dtype: DType) -> Tensor {
    func whole(_ value: Float) -> Int64 {  // what is not a number, or beyond the end, is at the end
      value.isNaN ? 0 : Int64(exactly: value.rounded(.towardZero)) ?? (value < 0 ? .min : .max)
    }
    switch dtype {
    case .float32: return Tensor(values, shape: shape)
    case .float16: return Tensor(dtype: dtype, numbers: values.map { Float16($0) }, shape: shape)
    case .int32, .int64, .uint8: return converted(values.map(whole), to: dtype)
    }
  }

  private func converted(_ values: [Int64], to dtype: DType) -> Tensor {
    switch dtype {
    case .float32: Tensor(values.map { Float($0) }, shape: shape)
    case .float16: Tensor(dtype: dtype, numbers: values.map { Float16(Float($0)) }, shape: shape)
    case .int32: Tensor(dtype: dtype, numbers: values.map { Int32(truncatingIfNeeded: $0) }, shape: shape)
    case .int64: Tensor(dtype: dtype, numbers: values, shape: shape)
    case .uint8: Tensor(dtype: dtype, numbers: values.map { UInt8(truncatingIfNeeded: $0) }, shape: shape)
    }
  }

  /// Transposes as numpy.transpose: axis i of the result is axis `order[i]` of this. Nil where that is not an order.
  func transposed(_ order: [Int]) -> Tensor? {
    guard order.sorted() == Array(shape.indices) else { return nil }
    if order == Array(shape.indices) { return self }
    let size = dtype.size
    let strides = shape.indices.map { shape[($0 + 1)...].reduce(size, *) }
    let result = order.map { shape[$0] }
    let steps = order.map { strides[$0] }
    let made = [UInt8](unsafeUninitializedCapacity: bytes.count) { into, written in
      written = bytes.count
      bytes.withUnsafeBytes { from in
        var place = [Int](repeating: 0, count: result.count)
        var at = 0
        for begin in stride(from: 0, to: bytes.count, by: size) {
          for k in 0..<size { into[begin + k] = from[at + k] }
          for axis in result.indices.reversed() {
            at += steps[axis]
            place[axis] += 1
            if place[axis] < result[axis] { break }
            at -= result[axis] * steps[axis]
            place[axis] = 0
          }
        }
      }
    }
    return Tensor(dtype: dtype, shape: result, bytes: made)
  }

  /// Cuts into `parts` equal parts along the first axis; nil where it cannot be cut so.
  func cut(_ parts: Int) -> [Tensor]? {
    guard let first = shape.first, first % parts == 0 else { return nil }
    let part = [first / parts] + shape.dropFirst()
    let size = bytes.count / parts
    return (0..<parts).map { Tensor(dtype: dtype, shape: part, bytes: Array(bytes[$0 * size..<($0 + 1) * size])) }
  }

  /// Joins tensors along an axis; nil where they do not fit.
  static func concat(_ all: [Tensor], axis: Int) -> Tensor? {
    guard let first = all.first, first.shape.indices.contains(axis) else { return nil }
    var shape = first.shape
    shape[axis] = all.reduce(0) { $0 + ($1.shape.indices.contains(axis) ? $1.shape[axis] : 0) }
    for other in all {
      var like = other.shape
      if like.indices.contains(axis) { like[axis] = shape[axis] }
      if other.dtype != first.dtype || like != shape { return nil }
    }
    let runs = all.map { $0.shape[axis...].reduce($0.dtype.size, *) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(all.reduce(0) { $0 + $1.bytes.count })
    for i in 0..<shape[..<axis].reduce(1, *) {
      for (one, run) in zip(all, runs) { bytes += one.bytes[i * run..<(i + 1) * run] }
    }
    return Tensor(dtype: first.dtype, shape: shape, bytes: bytes)
  }

  /// Adds float32 tensors elementwise, from left to right; nil where they do not fit.
  static func sum(_ all: [Tensor]) -> Tensor? {
    guard let first = all.first, all.allSatisfy({ $0.shape == first.shape && $0.dtype == .float32 }) else { return nil }
    var sum = first.floats
    for one in all.dropFirst() {
      for (i, value) in one.floats.enumerated() { sum[i] += value }
    }
    return Tensor(sum, shape: first.shape)
  }
}
