#if canImport(CryptoKit)
  import CryptoKit
#endif

/// Sha256, by CryptoKit where there is one, else by `PlainSHA256`.
struct SHA256 {
  #if canImport(CryptoKit)
    private var hash = CryptoKit.SHA256()
  #else
    private var hash = PlainSHA256()
  #endif

  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    #if canImport(CryptoKit)
      hash.update(bufferPointer: bytes)
    #else
      hash.update(bytes)
    #endif
  }

  /// The 32 bytes of the digest.
  mutating func finish() -> [UInt8] {
    #if canImport(CryptoKit)
      Array(hash.finalize())
    #else
      hash.finish()
    #endif
  }

  static func digest(of bytes: [UInt8]) -> [UInt8] {
    var hash = SHA256()
    bytes.withUnsafeBytes { hash.update($0) }
    return hash.finish()
  }

  static func hex(of bytes: [UInt8]) -> String { hex(digest: digest(of: bytes)) }

  static func hex(digest: [UInt8]) -> String {
    let digits = Array("0123456789abcdef")
    return String(digest.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
  }
}
