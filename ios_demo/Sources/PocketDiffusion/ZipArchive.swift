import Foundation

/// A zip on disk, read piece by piece: of any size, stored or deflated.
struct ZipArchive {
  struct Entry: Equatable {
    let name: String
    let size: Int64
    let packedSize: Int64
    let crc: UInt32
    let isStored: Bool
    /// Where its own header begins.
    let at: Int64
  }

  private static let piece = 1 << 18
  private static let (endMark, end64Mark, locatorMark, entryMark, headerMark): (Int, Int, Int, Int, Int) = (
    0x0605_4b50, 0x0606_4b50, 0x0706_4b50, 0x0201_4b50, 0x0403_4b50
  )

  /// Files alone: names of folders end with `/`, and say nothing more.
  let entries: [Entry]
  private let file: URL

  /// Reads the table of a zip. Throws `unreadable`, also for what is not a zip, is cut off, or is packed otherwise.
  init(file: URL) throws {
    self.file = file
    do {
      let handle = try FileHandle(forReadingFrom: file)
      defer { try? handle.close() }
      entries = try Self.readEntries(handle, name: file.lastPathComponent)
    } catch let error as EngineError {
      throw error
    } catch {
      throw EngineError.unreadable(path: file.lastPathComponent, said: error.localizedDescription)
    }
  }

  /// Gives the bytes of a file to `sink`. Throws `unreadable` where they are damaged, and what `sink` throws.
  func unpack(_ entry: Entry, _ sink: ([UInt8]) throws -> Void) throws {
    let handle = try FileHandle(forReadingFrom: file)
    defer { try? handle.close() }
    let header = try Self.bytes(handle, at: entry.at, count: 30, name: entry.name)
    guard header.number(0, 4) == Self.headerMark else { throw Self.damaged(entry.name) }
    try handle.seek(toOffset: UInt64(entry.at + 30 + Int64(header.number(26, 2) + header.number(28, 2))))
    var left = entry.packedSize
    func next() throws -> [UInt8] {
      let piece = left == 0 ? nil : try handle.read(upToCount: Int(min(left, Int64(Self.piece))))
      left -= Int64(piece?.count ?? 0)
      return piece.map { Array($0) } ?? []
    }
    var (size, crc): (Int64, UInt32) = (0, 0)
    func take(_ bytes: [UInt8]) throws {
      size += Int64(bytes.count)
      if size > entry.size { throw Self.damaged(entry.name) }
      crc = Checksum.crc32(bytes, before: crc)
      try sink(bytes)
    }
    if entry.isStored {
      while true {
        let bytes = try next()
        if bytes.isEmpty { break }
        try take(bytes)
      }
    } else {
      do {
        try withoutActuallyEscaping(next) { next in try Inflate.raw(source: next, sink: take) }
      } catch is Inflate.Damaged {
        throw Self.damaged(entry.name)
      }
    }
    if size != entry.size || crc != entry.crc { throw Self.damaged(entry.name) }
  }

  private static func readEntries(_ handle: FileHandle, name: String) throws -> [Entry] {
    let length = Int64(try handle.seekToEnd())
    let tailAt = max(length - 65557 - 20, 0)  // the longest comment there can be, and the locator before it
    let tail = try bytes(handle, at: tailAt, count: Int(length - tailAt), name: name)
    guard tail.count >= 22,
      let end = stride(from: tail.count - 22, through: 0, by: -1).first(where: { tail.number($0, 4) == endMark })
    else { throw EngineError.unreadable(path: name, said: "it is not a zip, or it is cut off") }
    var (count, size, at) = (tail.number(end + 10, 2), tail.number(end + 12, 4), Int64(tail.number(end + 16, 4)))
    if end >= 20, tail.number(end - 20, 4) == locatorMark {  // more than 4 GB, or many files
      let long = try bytes(handle, at: Int64(tail.number(end - 12, 8)), count: 56, name: name)
      guard long.number(0, 4) == end64Mark else { throw damaged(name) }
      (count, size, at) = (long.number(32, 8), long.number(40, 8), Int64(long.number(48, 8)))
    }
    guard size >= 0, size < 1 << 28 else { throw damaged(name) }
    let table = try bytes(handle, at: at, count: size, name: name)
    var entries: [Entry] = []
    var place = 0
    for _ in 0..<count {
      guard place + 46 <= table.count, table.number(place, 4) == entryMark else { throw damaged(name) }
      let ends = place + 46 + table.number(place + 28, 2)
      let next = ends + table.number(place + 30, 2) + table.number(place + 32, 2)
      guard next <= table.count else { throw damaged(name) }
      let path = String(decoding: table[place + 46..<ends], as: UTF8.self)
      if !path.hasSuffix("/") { entries.append(try entry(table, place, path, extra: ends)) }
      place = next
    }
    return entries
  }

  private static func entry(_ table: [UInt8], _ place: Int, _ path: String, extra: Int) throws -> Entry {
    let method = table.number(place + 10, 2)
    guard table.number(place + 8, 2) & 1 == 0, method == 0 || method == 8 else {
      throw EngineError.unreadable(path: path, said: "it is packed in a way that is not read here")
    }
    var numbers = [table.number(place + 24, 4), table.number(place + 20, 4), table.number(place + 42, 4)]
    var at = extra
    let end = extra + table.number(place + 30, 2)
    while at + 4 <= end {  // the field 1 holds the numbers that do not fit into 4 bytes, in their order
      let next = at + 4 + table.number(at + 2, 2)
      guard next <= end else { throw damaged(path) }
      if table.number(at, 2) == 1 {
        var from = at + 4
        for i in numbers.indices where numbers[i] == 0xffff_ffff {
          guard from + 8 <= next else { throw damaged(path) }
          numbers[i] = table.number(from, 8)
          from += 8
        }
      }
      at = next
    }
    guard numbers.allSatisfy({ $0 >= 0 }) else { throw damaged(path) }
    return Entry(
      name: path, size: Int64(numbers[0]), packedSize: Int64(numbers[1]), crc: UInt32(table.number(place + 16, 4)),
      isStored: method == 0, at: Int64(numbers[2]))
  }

  private static func bytes(_ handle: FileHandle, at: Int64, count: Int, name: String) throws -> [UInt8] {
    guard at >= 0 else { throw damaged(name) }
    try handle.seek(toOffset: UInt64(at))
    let bytes = count == 0 ? [] : Array(try handle.read(upToCount: count) ?? Data())
    if bytes.count != count { throw damaged(name) }
    return bytes
  }

  private static func damaged(_ name: String) -> EngineError { .unreadable(path: name, said: "the zip is damaged") }
}

extension [UInt8] {
  /// A little-endian number of `count` bytes; one that no Int holds is negative.
  fileprivate func number(_ at: Int, _ count: Int) -> Int {
    (0..<count).reduce(0) { $0 | Int(truncatingIfNeeded: UInt64(self[at + $1]) << (8 * UInt64($1))) }
  }
}
