import Foundation

/// A bundle in a folder (docs/BUNDLE.md, sections 1 and 2). It opens whole or not at all: names and sizes are compared
/// when it is opened, the digest of each file when it is first read, and of all files by `checkAll`.
public final class ModelBundle: Sendable {
  public let folder: URL
  public let manifest: Manifest
  private let digests: DigestMemory

  /// Opens the bundle in `folder`. One that failed its proof is opened only where `unproven` says so, which is for
  /// developers. Throws `notABundle`, `wrongVersion`, `notWhole`, `refusal`, `contradiction` or `proofFailed`.
  public init(folder: URL, digests: DigestMemory = DigestMemory(), unproven: Bool = false) throws {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: folder.path, isDirectory: &isFolder), isFolder.boolValue else {
      throw EngineError.notABundle(folder: folder.lastPathComponent, why: "it is not a folder")
    }
    manifest = try Manifest(bytes: Self.readManifest(in: folder))
    let faults = manifest.files.faults(found: try Self.list(folder))
    if !faults.isEmpty { throw EngineError.notWhole(faults) }
    if !manifest.proof.passed && !unproven { throw EngineError.proofFailed(subject: manifest.proof.worst?.subject) }
    self.folder = folder
    self.digests = digests
  }

  /// Reads a file of the table, whose digest is compared each time.
  func read(_ path: String) throws -> [UInt8] {
    let entry = try entry(of: path)
    let file = try ordinary(path)
    let bytes = try Self.reading(path) { Array(try Data(contentsOf: file)) }
    if Int64(bytes.count) != entry.size { throw EngineError.notWhole([Fault(path: path, kind: .size)]) }
    if SHA256.hex(of: bytes) != entry.sha256 { throw EngineError.notWhole([Fault(path: path, kind: .content)]) }
    return bytes
  }

  /// Reads a text file of the bundle for people, such as a licence.
  public func text(_ path: String) throws -> String {
    guard let text = String(utf8: try read(path)) else {
      throw EngineError.contradiction(place: path, why: "it is not UTF-8")
    }
    return text
  }

  /// The picture by the original, or nil where the bundle has none.
  public func originalPicture() throws -> Picture? {
    try manifest.picture.map { try PNG.read(read($0.image), place: $0.image) }
  }

  func array(_ ref: ArrayRef) throws -> Tensor {
    try Tensor(file: read(ref.path)[...], dtype: ref.dtype, shape: ref.shape, place: ref.path)
  }

  func json<Value: Decodable>(_ type: Value.Type, _ path: String) throws -> Value {
    try BundleJSON.decode(type, from: read(path), path: path)
  }

  /// Where a file lies that an engine opens by itself, once its digest was compared.
  public func locate(_ path: String) throws -> URL {
    if let fault = try checkDigest(path, onBytes: { _ in }) { throw EngineError.notWhole([fault]) }
    return folder.appendingPathComponent(path)
  }

  /// Compares the digest of every file that is installed; `onProgress` hears how many bytes of how many were read, and
  /// may throw to stop. Throws `notWhole`, which names all that are wrong.
  public func checkAll(onProgress: (_ done: Int64, _ total: Int64) throws -> Void = { _, _ in }) throws {
    let installed = manifest.files.paths.filter {
      FileManager.default.fileExists(atPath: folder.appendingPathComponent($0).path)
    }
    let total = try installed.reduce(0) { $0 + (try entry(of: $1).size) }
    var done: Int64 = 0
    var faults: [Fault] = []
    for path in installed {
      var read: Int64 = 0
      let fault = try checkDigest(path) { count in
        read += Int64(count)
        try onProgress(done + read, total)
      }
      if let fault { faults.append(fault) }
      done += try entry(of: path).size  // also where it was remembered, and nothing was read
    }
    try onProgress(total, total)
    if !faults.isEmpty { throw EngineError.notWhole(faults) }
  }

  /// Reads the pipeline of a format. Throws `cannotRunHere` where the bundle does not hold that format.
  public func pipeline(format: String) throws -> Pipeline {
    guard let entry = manifest.formats[format] else {
      let there = manifest.formatNames.joined(separator: " and ")
      throw EngineError.cannotRunHere(graph: "The bundle", why: "it holds \(there), and this app runs \(format)")
    }
    return try Pipeline(format: format, bytes: read(entry.pipeline), path: entry.pipeline)
  }

  private func checkDigest(_ path: String, onBytes: (Int) throws -> Void) throws -> Fault? {
    let entry = try entry(of: path)
    let file = try ordinary(path)
    return try Self.reading(path) {
      let size = try FileManager.default.attributesOfItem(atPath: file.path)[.size] as? NSNumber
      if size?.int64Value != entry.size { return Fault(path: path, kind: .size) }
      let digest = try digests.sha256(of: file, onBytes: onBytes)
      return digest == entry.sha256 ? nil : Fault(path: path, kind: .content)
    }
  }

  private func entry(of path: String) throws -> FileTable.Entry {
    guard let entry = manifest.files[path] else {
      throw EngineError.contradiction(place: path, why: "the manifest does not list it")
    }
    return entry
  }

  /// The file itself: neither it nor a folder above it, within the bundle, is a link.
  private func ordinary(_ path: String) throws -> URL {
    var at = folder
    var type: FileAttributeType?
    for part in path.split(separator: "/") {
      at.appendPathComponent(String(part))
      type = (try? FileManager.default.attributesOfItem(atPath: at.path))?[.type] as? FileAttributeType
      if type == .typeSymbolicLink { throw EngineError.notWhole([Fault(path: path, kind: .link)]) }
    }
    if type == .typeRegular { return at }
    if try entry(of: path).role != .runtime { throw EngineError.proofNotInstalled(path: path) }
    throw EngineError.notWhole([Fault(path: path, kind: .missing)])
  }

  /// Reads manifest.json, which is the one that manifest.sha256 names.
  private static func readManifest(in folder: URL) throws -> [UInt8] {
    func top(_ name: String) throws -> [UInt8]? {
      let file = folder.appendingPathComponent(name)
      switch (try? FileManager.default.attributesOfItem(atPath: file.path))?[.type] as? FileAttributeType {
      case .typeSymbolicLink?: throw EngineError.notWhole([Fault(path: name, kind: .link)])
      case .typeRegular?: return try reading(name) { Array(try Data(contentsOf: file)) }
      default: return nil
      }
    }
    let (bytes, line) = (try top(FileTable.manifest), try top(FileTable.digest))
    if bytes == nil && line == nil {
      throw EngineError.notABundle(folder: folder.lastPathComponent, why: "it has no \(FileTable.manifest)")
    }
    guard let bytes else { throw EngineError.notWhole([Fault(path: FileTable.manifest, kind: .missing)]) }
    guard let line else { throw EngineError.notWhole([Fault(path: FileTable.digest, kind: .missing)]) }
    return try checked(manifest: bytes, line: line)
  }

  /// The bytes of manifest.json, where `line`, the bytes of manifest.sha256, names them.
  static func checked(manifest bytes: [UInt8], line: [UInt8]) throws -> [UInt8] {
    let text = String(decoding: line, as: UTF8.self)
    let told = text.prefix(64)
    guard text == "\(told)  \(FileTable.manifest)\n", told.allSatisfy({ $0.isHexDigit && !$0.isUppercase }) else {
      throw EngineError.notWhole([Fault(path: FileTable.digest, kind: .content)])
    }
    if told != SHA256.hex(of: bytes) { throw EngineError.notWhole([Fault(path: FileTable.manifest, kind: .content)]) }
    return bytes
  }

  /// Does `work`, and gives the system's errors the name of the file.
  private static func reading<Result>(_ path: String, _ work: () throws -> Result) throws -> Result {
    do {
      return try work()
    } catch let error as EngineError {
      throw error
    } catch {
      throw EngineError.unreadable(path: path, said: error.localizedDescription)
    }
  }

  /// Every file below the folder with its size; nil stands for links and other odd files.
  private static func list(_ folder: URL) throws -> [String: Int64?] {
    var found: [String: Int64?] = [:]
    func visit(_ folder: URL, _ prefix: String) throws {
      for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
        let file = folder.appendingPathComponent(name)
        let facts = try FileManager.default.attributesOfItem(atPath: file.path)
        switch facts[.type] as? FileAttributeType {
        case .typeDirectory?: try? visit(file, "\(prefix)\(name)/")  // one that cannot be read is another program's
        case .typeRegular?: found.updateValue((facts[.size] as? NSNumber)?.int64Value, forKey: prefix + name)
        default: found.updateValue(nil, forKey: prefix + name)
        }
      }
    }
    try reading(folder.lastPathComponent) { try visit(folder, "") }
    return found
  }
}
