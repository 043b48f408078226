import Foundation

@testable import PocketDiffusion

/// Bundles that are changed, and sealed again as if nothing had happened.
enum Forgery {
  /// A copy of a bundle to change.
  static func copy(_ bundle: URL, into folder: URL) throws -> URL {
    let copy = folder.appendingPathComponent(bundle.lastPathComponent)
    try FileManager.default.copyItem(at: bundle, to: copy)
    return copy
  }

  /// Changes a JSON file of the bundle, and seals the bundle.
  static func change(_ folder: URL, _ path: String, _ change: (inout [String: Any]) -> Void) throws {
    let file = folder.appendingPathComponent(path)
    var object = try read(file)
    change(&object)
    try write(file, object)
    try seal(folder)
  }

  /// Writes sizes and digests of all files of the table, the ids and manifest.sha256 anew.
  static func seal(_ folder: URL) throws {
    let file = folder.appendingPathComponent(FileTable.manifest)
    var manifest = try read(file)
    var files = manifest["files"] as? [String: [String: Any]] ?? [:]
    for path in files.keys {
      guard let data = try? Data(contentsOf: folder.appendingPathComponent(path)) else { continue }
      files[path]?["size"] = data.count
      files[path]?["sha256"] = SHA256.hex(of: Array(data))
    }
    manifest["files"] = files
    try write(file, manifest)
    if let table = try? FileTable(manifest: Array(Data(contentsOf: file))) {
      manifest["runtime_id"] = table.runtimeID
      manifest["bundle_id"] = table.bundleID
    }
    try write(file, manifest)
    let line = "\(SHA256.hex(of: Array(try Data(contentsOf: file))))  \(FileTable.manifest)\n"
    try Data(line.utf8).write(to: folder.appendingPathComponent(FileTable.digest))
  }

  private static func read(_ file: URL) throws -> [String: Any] {
    try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any] ?? [:]
  }

  private static func write(_ file: URL, _ object: [String: Any]) throws {
    try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys]).write(to: file)
  }
}

/// A value within nested JSON objects.
func setting(_ object: inout [String: Any], _ keys: [String], to value: Any) {
  guard keys.count > 1 else {
    object[keys[0]] = value
    return
  }
  var inner = object[keys[0]] as? [String: Any] ?? [:]
  setting(&inner, Array(keys[1...]), to: value)
  object[keys[0]] = inner
}
