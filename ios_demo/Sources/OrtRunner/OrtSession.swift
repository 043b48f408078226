import COrt
import PocketDiffusion

/// A file that onnxruntime has open, by the file's own names, shapes and dtypes.
public final class OrtSession {
  private let library: OrtLibrary
  private let session: OpaquePointer

  /// Opens a file on the CPU; external data is found beside it. Throws `OrtFailure`.
  init(_ library: OrtLibrary, path: String, threads: Int32) throws {
    let api = library.api
    let options = try library.make { api.CreateSessionOptions($0) }
    defer { api.ReleaseSessionOptions(options) }
    try library.check(api.SetIntraOpNumThreads(options, threads))
    try library.check(api.AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"))
    session = try library.make { api.CreateSession(library.environment, path, options, $0) }
    self.library = library
  }

  deinit { library.api.ReleaseSession(session) }

  /// Calls the file. `outputs` are the names, dtypes and shapes that are wanted. Throws `OrtFailure`, also where
  /// `cancellation` ended the call.
  func run(
    _ inputs: Values, outputs: [(name: String, dtype: DType, shape: [Int])], cancellation: Cancellation
  ) throws -> Values {
    let api = library.api
    let options = try library.make { api.CreateRunOptions($0) }
    defer { api.ReleaseRunOptions(options) }
    var buffers = inputs.map { Buffer($0.key, $0.value) }
    buffers += outputs.map { Buffer($0.name, Tensor(zeros: $0.shape, dtype: $0.dtype)) }
    var values: [OpaquePointer?] = []
    defer { for value in values { api.ReleaseValue(value) } }
    for buffer in buffers { values.append(try wrap(buffer)) }
    let names = buffers.map(\.name)
    func call() -> OpaquePointer? {
      names.withUnsafeBufferPointer { names in
        values.withUnsafeMutableBufferPointer { values in
          api.Run(
            session, options, names.baseAddress, values.baseAddress, inputs.count,
            names.baseAddress.map { $0 + inputs.count }, outputs.count, values.baseAddress.map { $0 + inputs.count })
        }
      }
    }
    let status = try cancellation.during(
      stop: { api.ReleaseStatus(api.RunOptionsSetTerminate(options)) }, work: call)
    try library.check(status)
    return Dictionary(uniqueKeysWithValues: zip(outputs, buffers[inputs.count...]).map { ($0.name, $1.tensor) })
  }

  private func wrap(_ buffer: Buffer) throws -> OpaquePointer {
    let shape = buffer.shape.map(Int64.init)
    return try library.make {
      library.api.CreateTensorWithDataAsOrtValue(
        library.memory, buffer.bytes.baseAddress, buffer.bytes.count, shape, shape.count, Self.type(of: buffer.dtype),
        $0)
    }
  }

  private static func type(of dtype: DType) -> ONNXTensorElementDataType {
    switch dtype {
    case .float32: ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
    case .float16: ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
    case .int32: ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32
    case .int64: ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64
    case .uint8: ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
    }
  }

  /// A tensor at a fixed address, with a name in C.
  private final class Buffer {
    let dtype: DType
    let shape: [Int]
    let bytes: UnsafeMutableRawBufferPointer
    private let nameBytes: UnsafeMutableBufferPointer<CChar>

    init(_ name: String, _ tensor: Tensor) {
      dtype = tensor.dtype
      shape = tensor.shape
      bytes = .allocate(byteCount: max(tensor.bytes.count, 1), alignment: 64)
      bytes.copyBytes(from: tensor.bytes)
      nameBytes = .allocate(capacity: name.utf8.count + 1)
      _ = nameBytes.initialize(from: name.utf8CString)
    }

    deinit {
      bytes.deallocate()
      nameBytes.deallocate()
    }

    var name: UnsafePointer<CChar>? { UnsafePointer(nameBytes.baseAddress) }

    var tensor: Tensor {
      let count = shape.reduce(dtype.size, *)
      return Tensor(dtype: dtype, shape: shape, bytes: Array(bytes[..<count]))
    }
  }
}
