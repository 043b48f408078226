import Foundation

/// The JSON files of a bundle.
enum BundleJSON {
  /// Decodes the bytes of `path`; members in snake_case become camelCase, keys of dictionaries stay as they are.
  ///
  /// Throws `contradiction`, which says where, for what is not JSON or is not of the type, and the EngineError that a
  /// type throws for a value that it does not know.
  static func decode<Value: Decodable>(_ type: Value.Type, from bytes: [UInt8], path: String) throws -> Value {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    do {
      return try decoder.decode(type, from: Data(bytes))
    } catch let error as DecodingError {
      throw translate(error, path: path)
    }
  }

  private static func translate(_ error: DecodingError, path: String) -> EngineError {
    func say(_ context: DecodingError.Context, _ why: String) -> EngineError {
      let names = context.codingPath.map { $0.intValue.map { "\($0)" } ?? $0.stringValue }
      return .contradiction(place: ([path] + names).joined(separator: "."), why: why)
    }
    switch error {
    case .keyNotFound(let key, let context): return say(context, "it has no \(key.stringValue)")
    case .valueNotFound(_, let context): return say(context, "it is null")
    case .typeMismatch(let type, let context): return say(context, "it is not a \(type)")
    case .dataCorrupted(let context): return say(context, "it is not JSON of a bundle: \(context.debugDescription)")
    @unknown default: return .contradiction(place: path, why: "it cannot be decoded")
    }
  }
}
