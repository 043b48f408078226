/// The checksums of PNG files and zips.
enum Checksum {
  private static let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 1 ? 0xedb8_8320 ^ value >> 1 : value >> 1 }
  }

  /// CRC-32 of bytes; `before` is that of what comes before them.
  static func crc32(_ bytes: some Sequence<UInt8>, before: UInt32 = 0) -> UInt32 {
    ~bytes.reduce(~before) { table[Int(($0 ^ UInt32($1)) & 255)] ^ $0 >> 8 }
  }

  static func adler32(_ bytes: [UInt8]) -> UInt32 {
    var (a, b): (UInt32, UInt32) = (1, 0)
    for byte in bytes {
      a = (a + UInt32(byte)) % 65521
      b = (b + a) % 65521
    }
    return b << 16 | a
  }
}
