import Foundation

/// The digests of files that were read once. A file of the same path, size and date is not read again; `store`, where
/// they are kept between runs of the app, lies outside of the bundle. Without a store they are kept in memory.
public final class DigestMemory: @unchecked Sendable {  // `lock` guards `known` and the store
  private struct Entry: Codable {
    let size: Int64
    let date: Double  // seconds
    let sha256: String
  }

  private let store: URL?
  private let lock = NSLock()
  private var known: [String: Entry]

  /// A store that cannot be read is none: the files are read again.
  public init(store: URL? = nil) {
    self.store = store
    let data = store.flatMap { try? Data(contentsOf: $0) }
    known = data.flatMap { try? JSONDecoder().decode([String: Entry].self, from: $0) } ?? [:]
  }

  /// Tells the sha256 of a file in hexadecimal. `onBytes` hears of every piece that is read, and may throw to stop.
  func sha256(of file: URL, onBytes: (Int) throws -> Void) throws -> String {
    let before = try facts(of: file)
    let path = file.standardizedFileURL.path
    if let entry = lock.withLock({ known[path] }), entry.size == before.size, entry.date == before.date {
      return entry.sha256
    }
    let digest = try Self.read(file, onBytes: onBytes)
    if try facts(of: file) == before {  // else it is being written: look again next time
      remember([path: Entry(size: before.size, date: before.date, sha256: digest)])
    }
    return digest
  }

  /// What is known of the files below `from` is true below `to`, to which the folder was renamed.
  func moved(from: URL, to: URL) {
    let (old, new) = (from.standardizedFileURL.path + "/", to.standardizedFileURL.path + "/")
    let files = lock.withLock {
      let files = known.filter { $0.key.hasPrefix(old) }
      known = known.filter { !$0.key.hasPrefix(old) && !$0.key.hasPrefix(new) }
      return files
    }
    remember(Dictionary(uniqueKeysWithValues: files.map { (new + $0.key.dropFirst(old.count), $0.value) }))
  }

  /// A store that cannot be written, where storage is full, costs time at the next start, and no more.
  private func remember(_ entries: [String: Entry]) {
    lock.withLock {
      known.merge(entries) { $1 }
      guard let store, let data = try? JSONEncoder().encode(known) else { return }
      try? data.write(to: store, options: .atomic)
    }
  }

  private func facts(of file: URL) throws -> (size: Int64, date: Double) {
    let facts = try FileManager.default.attributesOfItem(atPath: file.path)
    let date = (facts[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
    return ((facts[.size] as? NSNumber)?.int64Value ?? -1, date)
  }

  private static func read(_ file: URL, onBytes: (Int) throws -> Void) throws -> String {
    let handle = try FileHandle(forReadingFrom: file)
    defer { try? handle.close() }
    var hash = SHA256()
    while let piece = try handle.read(upToCount: 1 << 18), !piece.isEmpty {
      piece.withUnsafeBytes { hash.update($0) }
      try onBytes(piece.count)
    }
    return SHA256.hex(digest: hash.finish())
  }
}
