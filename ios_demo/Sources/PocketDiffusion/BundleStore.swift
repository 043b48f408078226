import Foundation

/// The bundles that are installed: folders beside each other, outside of the app. A bundle appears in its folder whole and
/// checked, in one rename, or not at all.
public final class BundleStore: Sendable {
  /// Bytes that are left to the rest of the system.
  static let spare: Int64 = 64 << 20

  let folder: URL
  let digests: DigestMemory
  let leftBytes: @Sendable () -> Int64?

  /// Keeps bundles in `folder`, and what is known of their digests beside them.
  ///
  /// - Parameter leftBytes: the bytes that are left where the folder lies; nil where the system does not say.
  public init(folder: URL, leftBytes: (@Sendable () -> Int64?)? = nil) throws {
    do {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    } catch {
      throw EngineError.unreadable(path: folder.lastPathComponent, said: error.localizedDescription)
    }
    self.folder = folder
    self.leftBytes = leftBytes ?? { Self.left(at: folder) }
    digests = DigestMemory(store: folder.appendingPathComponent(".digests.json"))
  }

  /// The names of the bundles, in alphabetical order.
  public var names: [String] {
    let all = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    return all.filter { !$0.hasPrefix(".") }.sorted()
  }

  /// Opens an installed bundle. Throws what `ModelBundle.init` throws.
  public func open(_ name: String, unproven: Bool = false) throws -> ModelBundle {
    try ModelBundle(folder: place(name), digests: digests, unproven: unproven)
  }

  public func remove(_ name: String) throws {
    do {
      try FileManager.default.removeItem(at: place(name))
    } catch {
      throw EngineError.unreadable(path: name, said: error.localizedDescription)
    }
  }

  /// Copies the runtime part of the bundle in `source`, such as a folder that was picked in Files, and checks it.
  /// `onProgress` hears how many bytes of how many are there, and may throw to stop. Throws `storageFull`, `unreadable`,
  /// and what `ModelBundle.init` and `checkAll` throw.
  public func add(
    copying source: URL, name: String, onProgress: (_ done: Int64, _ total: Int64) throws -> Void = { _, _ in }
  ) throws -> ModelBundle {
    let bundle = try ModelBundle(folder: source)
    let staging = staging(name, "importing")
    defer { try? FileManager.default.removeItem(at: staging) }
    try? FileManager.default.removeItem(at: staging)  // of an import that was killed
    let paths = runtimePaths(of: bundle.manifest)
    let total = paths.reduce(0) { $0 + (bundle.manifest.files[$1]?.size ?? 0) }
    try checkRoom(for: total)
    var done: Int64 = 0
    for path in paths + [FileTable.manifest, FileTable.digest] {
      let target = staging.appendingPathComponent(path)
      do {
        try FileManager.default.createDirectory(
          at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
        try FileManager.default.copyItem(at: source.appendingPathComponent(path), to: target)
      } catch {
        throw EngineError.unreadable(path: path, said: error.localizedDescription)
      }
      done += bundle.manifest.files[path]?.size ?? 0
      try onProgress(done, total)
    }
    return try install(staging, as: name)
  }

  /// Checks all files of a folder, and renames it.
  func install(_ staging: URL, as name: String) throws -> ModelBundle {
    try ModelBundle(folder: staging, digests: digests).checkAll()
    let target = place(name)
    do {
      if FileManager.default.fileExists(atPath: target.path) { try FileManager.default.removeItem(at: target) }
      try FileManager.default.moveItem(at: staging, to: target)
    } catch {
      throw EngineError.unreadable(path: name, said: error.localizedDescription)
    }
    digests.moved(from: staging, to: target)
    return try ModelBundle(folder: target, digests: digests)
  }

  func runtimePaths(of manifest: Manifest) -> [String] {
    manifest.files.paths.filter { manifest.files[$0]?.role == .runtime }
  }

  func staging(_ name: String, _ why: String) -> URL { folder.appendingPathComponent(".\(name).\(why)") }

  /// Throws `storageFull` where there is no room for so many bytes.
  func checkRoom(for bytes: Int64) throws {
    if let left = leftBytes(), left < bytes + Self.spare {
      throw EngineError.storageFull(needsBytes: bytes + Self.spare, leftBytes: left)
    }
  }

  private func place(_ name: String) -> URL { folder.appendingPathComponent(name, isDirectory: true) }

  private static func left(at folder: URL) -> Int64? {
    let facts = try? FileManager.default.attributesOfFileSystem(forPath: folder.path)
    return (facts?[.systemFreeSize] as? NSNumber)?.int64Value
  }
}
