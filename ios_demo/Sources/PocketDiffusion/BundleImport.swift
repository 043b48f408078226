import Foundation

/// A bundle out of a zip. It appears in its folder whole and checked, in one rename, or not at all: what an import that
/// was killed left behind is removed by the next.
public struct BundleImport: Sendable {
  /// Bytes that are left to the rest of the system.
  private static let spare: Int64 = 32 << 20

  private let folder: URL
  private let staging: URL
  private let digests: DigestMemory
  private let leftBytes: @Sendable (URL) -> Int64?

  /// - Parameter leftBytes: the bytes of storage that are left at a folder, or nil where that is not known.
  public init(
    folder: URL, digests: DigestMemory = DigestMemory(), leftBytes: @escaping @Sendable (URL) -> Int64? = { _ in nil }
  ) {
    self.folder = folder
    self.digests = digests
    self.leftBytes = leftBytes
    staging = folder.deletingLastPathComponent().appendingPathComponent(".\(folder.lastPathComponent).importing")
  }

  /// Unpacks a zip in which the bundle lies at the top or in one folder. `onBytes` hears how many bytes of how many were
  /// written, and may throw to stop. Throws `storageFull`, `unreadable`, and what `ModelBundle` throws.
  @discardableResult public func unzip(
    _ zip: URL, onBytes: (_ done: Int64, _ total: Int64) throws -> Void = { _, _ in }
  ) throws -> ModelBundle {
    let files = FileManager.default
    try? files.removeItem(at: staging)
    defer { try? files.removeItem(at: staging) }
    do {
      let archive = try ZipArchive(file: zip)
      try files.createDirectory(at: staging, withIntermediateDirectories: true)
      try unpack(archive, onBytes)
      let root = try findRoot(zip)
      try ModelBundle(folder: root, digests: digests).checkAll()
      try? files.removeItem(at: folder)
      try files.moveItem(at: root, to: folder)
      digests.moved(from: root, to: folder)
      return try ModelBundle(folder: folder, digests: digests)
    } catch let error as EngineError {
      throw error
    } catch {
      if let left = leftBytes(parent), left < Self.spare {
        throw EngineError.storageFull(needsBytes: Self.spare, leftBytes: left)
      }
      throw EngineError.unreadable(path: zip.lastPathComponent, said: error.localizedDescription)
    }
  }

  private var parent: URL { folder.deletingLastPathComponent() }

  private func unpack(_ archive: ZipArchive, _ onBytes: (Int64, Int64) throws -> Void) throws {
    // Names that no file of a bundle has, such as `..` or `__MACOSX/._x`, are passed over.
    let entries = archive.entries.filter { FileTable.isPath($0.name) }
    let total = entries.reduce(0) { $0 + $1.size }
    if let left = leftBytes(parent), left < total + Self.spare {
      throw EngineError.storageFull(needsBytes: total + Self.spare, leftBytes: left)
    }
    var done: Int64 = 0
    for entry in entries {
      let file = staging.appendingPathComponent(entry.name)
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      guard FileManager.default.createFile(atPath: file.path, contents: nil) else {
        throw EngineError.unreadable(path: entry.name, said: "it cannot be written")
      }
      let handle = try FileHandle(forWritingTo: file)
      defer { try? handle.close() }
      try archive.unpack(entry) { bytes in
        try handle.write(contentsOf: Data(bytes))
        done += Int64(bytes.count)
        try onBytes(done, total)
      }
    }
  }

  private func findRoot(_ zip: URL) throws -> URL {
    func hasManifest(_ folder: URL) -> Bool {
      FileManager.default.fileExists(atPath: folder.appendingPathComponent(FileTable.manifest).path)
    }
    if hasManifest(staging) { return staging }
    let inside = try FileManager.default.contentsOfDirectory(atPath: staging.path).sorted()
    guard let root = inside.map({ staging.appendingPathComponent($0) }).first(where: hasManifest) else {
      throw EngineError.notABundle(folder: zip.lastPathComponent, why: "it has no \(FileTable.manifest)")
    }
    return root
  }
}
