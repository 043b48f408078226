import COrt

/// onnxruntime's C library, opened at run time.
final class OrtLibrary: @unchecked Sendable {  // the library's functions and its environment are made for many threads
  let api: OrtApi
  let version: String
  let environment: OpaquePointer
  let memory: OpaquePointer

  /// Opens the library at `path`. Throws `OrtFailure`.
  init(path: String) throws {
    var version: UnsafePointer<CChar>?
    var reason: UnsafePointer<CChar>?
    guard let api = cort_open(path, &version, &reason) else {
      throw OrtFailure(said: reason.map { String(cString: $0) } ?? "it cannot be opened")
    }
    self.api = api.pointee
    self.version = version.map { String(cString: $0) } ?? ""
    environment = try Self.make(self.api) { api.pointee.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "swift", $0) }
    memory = try Self.make(self.api) { api.pointee.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, $0) }
  }

  /// Makes an object of the library. Throws `OrtFailure`.
  func make(_ call: (UnsafeMutablePointer<OpaquePointer?>) -> OpaquePointer?) throws -> OpaquePointer {
    try Self.make(api, call)
  }

  /// Throws what a status says, if it is one.
  func check(_ status: OpaquePointer?) throws { try Self.check(api, status) }

  private static func make(
    _ api: OrtApi, _ call: (UnsafeMutablePointer<OpaquePointer?>) -> OpaquePointer?
  ) throws -> OpaquePointer {
    var made: OpaquePointer?
    try check(api, call(&made))
    guard let made else { throw OrtFailure(said: "it made nothing") }
    return made
  }

  private static func check(_ api: OrtApi, _ status: OpaquePointer?) throws {
    guard let status else { return }
    defer { api.ReleaseStatus(status) }
    throw OrtFailure(said: api.GetErrorMessage(status).map { String(cString: $0) } ?? "an error without words")
  }
}

/// What onnxruntime says went wrong.
struct OrtFailure: Error {
  let said: String
}
