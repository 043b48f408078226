/// PNG files of 8 bits a channel. What is written says how the picture was made.
public enum PNG {
  private static let magic: [UInt8] = [137, 80, 78, 71, 13, 10, 26, 10]

  /// The channels of each colour type that is read; 3, of palettes, is not.
  private static let channels: [UInt8: Int] = [0: 1, 2: 3, 4: 2, 6: 4]

  /// Writes a PNG whose text chunks are `facts`, such as the prompt and the seed, in alphabetical order.
  public static func write(_ picture: Picture, facts: [String: String] = [:]) -> [UInt8] {
    let size = bigEndian(picture.width) + bigEndian(picture.height)
    var bytes = magic + chunk("IHDR", size + [8, 2, 0, 0, 0])
    for (key, text) in facts.sorted(by: { $0.key < $1.key }) {  // not compressed, no language, no translation
      bytes += chunk("iTXt", Array(key.utf8) + [0, 0, 0, 0, 0] + Array(text.utf8))
    }
    let run = picture.width * 3
    var rows: [UInt8] = []
    rows.reserveCapacity((run + 1) * picture.height)
    for y in 0..<picture.height { rows += [0] + picture.rgb[y * run..<(y + 1) * run] }
    return bytes + chunk("IDAT", stored(rows)) + chunk("IEND", [])
  }

  /// Reads a PNG; what is transparent lies over white. Throws `contradiction`, which names `place`, for what is not a
  /// PNG that can be read here.
  public static func read(_ bytes: [UInt8], place: String) throws -> Picture {
    func fail(_ why: String) -> EngineError { .contradiction(place: place, why: why) }
    let chunks = try readChunks(bytes, place: place)
    guard let header = chunks.first(where: { $0.name == "IHDR" })?.data, header.count == 13 else {
      throw fail("it is not a PNG")
    }
    let fields = Array(header)
    let (width, height) = (number(fields[0..<4]), number(fields[4..<8]))
    guard fields[8] == 8, fields[12] == 0, let channels = channels[fields[9]], (1...1 << 15).contains(width),
      (1...1 << 15).contains(height)
    else { throw fail("it is a PNG of a kind that is not read here") }
    let packed = chunks.filter { $0.name == "IDAT" }.flatMap(\.data)
    let size = (width * channels + 1) * height
    guard let rows = try? Inflate.zlib(packed, limit: size), rows.count == size,
      let levels = unfilter(rows, run: width * channels, height: height, channels: channels)
    else { throw fail("it is damaged") }
    return Picture(width: width, height: height, rgb: rgb(levels, channels: channels))
  }

  /// Reads the text chunks of a PNG. Throws `contradiction`.
  public static func readFacts(_ bytes: [UInt8], place: String) throws -> [String: String] {
    var facts: [String: String] = [:]
    for chunk in try readChunks(bytes, place: place) where chunk.name == "iTXt" {
      guard let end = chunk.data.firstIndex(of: 0), chunk.data[end...].starts(with: [0, 0, 0, 0, 0]) else { continue }
      facts[String(decoding: chunk.data[..<end], as: UTF8.self)] =
        String(decoding: chunk.data[(end + 5)...], as: UTF8.self)
    }
    return facts
  }

  private static func bigEndian(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(value >> (24 - 8 * $0) & 255) } }

  private static func number(_ bytes: ArraySlice<UInt8>) -> Int { bytes.reduce(0) { $0 << 8 | Int($1) } }

  private static func chunk(_ name: String, _ data: [UInt8]) -> [UInt8] {
    let body = Array(name.utf8) + data
    return bigEndian(data.count) + body + bigEndian(Int(Checksum.crc32(body)))
  }

  /// A zlib stream that packs nothing.
  private static func stored(_ bytes: [UInt8]) -> [UInt8] {
    var stream: [UInt8] = [0x78, 1]
    stream.reserveCapacity(bytes.count + bytes.count / 8192 + 16)
    for at in stride(from: 0, to: bytes.count, by: 65535) {
      let end = min(at + 65535, bytes.count)
      let size = UInt16(end - at)
      stream.append(end == bytes.count ? 1 : 0)
      for value in [size, ~size] { stream += [UInt8(value & 255), UInt8(value >> 8)] }
      stream += bytes[at..<end]
    }
    return stream + bigEndian(Int(Checksum.adler32(bytes)))
  }

  private static func readChunks(_ bytes: [UInt8], place: String) throws -> [(name: String, data: ArraySlice<UInt8>)] {
    guard bytes.starts(with: magic) else { throw EngineError.contradiction(place: place, why: "it is not a PNG") }
    var chunks: [(String, ArraySlice<UInt8>)] = []
    var at = magic.count
    while at + 12 <= bytes.count {
      let end = at + 8 + number(bytes[at..<at + 4])
      let isWhole = end + 4 <= bytes.count
      guard isWhole, number(bytes[end..<end + 4]) == Int(Checksum.crc32(bytes[(at + 4)..<end])) else {
        throw EngineError.contradiction(place: place, why: isWhole ? "it is damaged" : "it is cut off")
      }
      chunks.append((String(decoding: bytes[at + 4..<at + 8], as: UTF8.self), bytes[at + 8..<end]))
      at = end + 4
    }
    return chunks
  }

  /// Turns the differences of each row, with the filter's number before it, into levels; nil for an unknown filter.
  private static func unfilter(_ rows: [UInt8], run: Int, height: Int, channels: Int) -> [UInt8]? {
    var levels = [UInt8](repeating: 0, count: run * height)
    for y in 0..<height {
      let kind = rows[y * (run + 1)]
      if kind > 4 { return nil }
      for i in 0..<run {
        let left = i < channels ? 0 : Int(levels[y * run + i - channels])
        let up = y == 0 ? 0 : Int(levels[(y - 1) * run + i])
        let corner = i < channels || y == 0 ? 0 : Int(levels[(y - 1) * run + i - channels])
        let guess = [0, left, up, (left + up) / 2, kind == 4 ? paeth(left, up, corner) : 0][Int(kind)]
        levels[y * run + i] = rows[y * (run + 1) + 1 + i] &+ UInt8(guess)
      }
    }
    return levels
  }

  private static func paeth(_ left: Int, _ up: Int, _ corner: Int) -> Int {
    let (a, b, c) = (abs(up - corner), abs(left - corner), abs(left + up - 2 * corner))
    return a <= b && a <= c ? left : b <= c ? up : corner
  }

  private static func rgb(_ levels: [UInt8], channels: Int) -> [UInt8] {
    if channels == 3 { return levels }
    var rgba: [UInt8] = []
    rgba.reserveCapacity(levels.count / channels * 4)
    for at in stride(from: 0, to: levels.count, by: channels) {
      for k in 0..<3 { rgba.append(levels[channels < 3 ? at : at + k]) }
      rgba.append(channels % 2 == 0 ? levels[at + channels - 1] : 255)
    }
    return ImageToImage.overWhite(rgba: rgba)
  }
}
