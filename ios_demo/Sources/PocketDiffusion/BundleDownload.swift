import Foundation

/// Where a bundle's files can be had by their paths.
public protocol Remote: Sendable {
  /// Sends the bytes of a file from byte `from` on, or, where the server cannot, from its beginning: `onBegin` hears which,
  /// before the first piece. What `onPiece` throws ends it. Throws the system's errors.
  func read(
    _ path: String, from: Int64, onBegin: @escaping @Sendable (_ from: Int64) throws -> Void,
    onPiece: @escaping @Sendable (Data) throws -> Void
  ) async throws
}

extension BundleStore {
  /// Loads the runtime part of a bundle from a server, file by file. What arrived is kept where the download breaks off,
  /// and the next one goes on from there. `onProgress` hears how many bytes of how many are there, and may throw to stop.
  ///
  /// Throws `downloadBroken`, `storageFull`, `notWhole` for a file whose content is wrong (it is loaded anew by the next
  /// download), `cancelled` where the task was cancelled, and what `ModelBundle.init` throws.
  public func add(
    downloading remote: any Remote, name: String,
    onProgress: @escaping @Sendable (_ done: Int64, _ total: Int64) throws -> Void = { _, _ in }
  ) async throws -> ModelBundle {
    let staging = staging(name, "loading")
    func small(_ path: String) async throws -> [UInt8] {
      let file = staging.appendingPathComponent(".\(path).new")
      try? FileManager.default.removeItem(at: file)
      defer { try? FileManager.default.removeItem(at: file) }
      try await load(remote, path, into: file, staging: staging) { _ in }
      return Array((try? Data(contentsOf: file)) ?? Data())
    }
    let (bytes, line) = (try await small(FileTable.manifest), try await small(FileTable.digest))
    let manifest = try Manifest(bytes: ModelBundle.checked(manifest: bytes, line: line))
    let paths = runtimePaths(of: manifest)
    let entries = paths.compactMap { path in manifest.files[path].map { (path: path, entry: $0) } }
    removeOthers(than: Set(paths), in: staging)
    let total = entries.reduce(0) { $0 + $1.entry.size }
    try checkRoom(for: total - entries.reduce(0) { $0 + size(staging.appendingPathComponent($1.path)) })
    var done: Int64 = 0
    for (path, entry) in entries {
      let before = done
      let file = staging.appendingPathComponent(path)
      if size(file) > entry.size { try? FileManager.default.removeItem(at: file) }
      if size(file) < entry.size || entry.size == 0 {
        try await load(remote, path, into: file, staging: staging) { try onProgress(before + $0, total) }
      }
      if size(file) < entry.size {
        throw broken(staging, "the server sent \(size(file)) of \(entry.size) bytes of \(path)")
      }
      guard size(file) == entry.size, try digests.sha256(of: file, onBytes: { _ in }) == entry.sha256 else {
        try? FileManager.default.removeItem(at: file)
        throw EngineError.notWhole([Fault(path: path, kind: .content)])
      }
      done += entry.size
      try onProgress(done, total)
    }
    do {
      try Data(bytes).write(to: staging.appendingPathComponent(FileTable.manifest))
      try Data(line).write(to: staging.appendingPathComponent(FileTable.digest))
    } catch {
      throw EngineError.unreadable(path: FileTable.manifest, said: error.localizedDescription)
    }
    return try install(staging, as: name)
  }

  /// Loads what is not yet there of a file, at its end.
  private func load(
    _ remote: any Remote, _ path: String, into file: URL, staging: URL,
    onSize: @escaping @Sendable (Int64) throws -> Void
  ) async throws {
    let sink: FileSink
    do {
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      sink = try FileSink(file)
    } catch {
      throw EngineError.unreadable(path: path, said: error.localizedDescription)
    }
    defer { sink.close() }
    do {
      try await remote.read(path, from: sink.size, onBegin: sink.begin) { piece in
        try sink.write(piece)
        try onSize(sink.size)
      }
    } catch let error as EngineError {
      throw error
    } catch is CancellationError {
      throw EngineError.cancelled
    } catch {
      if Task.isCancelled { throw EngineError.cancelled }
      if let left = leftBytes(), left < 1 << 20 { throw EngineError.storageFull(needsBytes: 1 << 20, leftBytes: left) }
      throw broken(staging, "\(path): \(error.localizedDescription)")
    }
  }

  private func broken(_ staging: URL, _ said: String) -> EngineError {
    .downloadBroken(doneBytes: files(in: staging).reduce(0) { $0 + size($1) }, said: said)
  }

  /// Removes what an older bundle of this name left.
  private func removeOthers(than paths: Set<String>, in staging: URL) {
    let wanted = Set(paths.map { staging.appendingPathComponent($0).standardizedFileURL.path })
    for file in files(in: staging) where !wanted.contains(file.standardizedFileURL.path) {
      try? FileManager.default.removeItem(at: file)
    }
  }

  private func files(in folder: URL) -> [URL] {
    let all =
      FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)?.compactMap { $0 as? URL } ?? []
    return all.filter {
      var isFolder: ObjCBool = false
      return FileManager.default.fileExists(atPath: $0.path, isDirectory: &isFolder) && !isFolder.boolValue
    }
  }

  private func size(_ file: URL) -> Int64 {
    let facts = try? FileManager.default.attributesOfItem(atPath: file.path)
    return (facts?[.size] as? NSNumber)?.int64Value ?? 0
  }
}

/// A file that grows at its end.
private final class FileSink: @unchecked Sendable {  // pieces come one after the other
  private let handle: FileHandle
  private(set) var size: Int64

  init(_ file: URL) throws {
    if !FileManager.default.fileExists(atPath: file.path) { try Data().write(to: file) }
    handle = try FileHandle(forWritingTo: file)
    size = Int64(try handle.seekToEnd())
  }

  /// Goes on at a byte, which is the end or the beginning.
  func begin(at place: Int64) throws {
    if place == size { return }
    try handle.truncate(atOffset: UInt64(min(place, size)))
    size = min(place, size)
  }

  func write(_ piece: Data) throws {
    try handle.write(contentsOf: piece)
    size += Int64(piece.count)
  }

  func close() { try? handle.close() }
}
