extension String {
  /// Reads UTF-8; nil where the bytes are none: nothing is replaced or left out.
  init?(utf8 bytes: [UInt8]) {
    self.init(decoding: bytes, as: UTF8.self)
    if !utf8.elementsEqual(bytes) { return nil }
  }
}
