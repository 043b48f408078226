import Foundation

/// Who needs a file: of each role but `runtime`, also of one that this engine does not know, all files are there, or
/// none.
public struct Role: RawRepresentable, Hashable, Sendable, Decodable {
  public static let runtime = Role(rawValue: "runtime")
  public static let companion = Role(rawValue: "companion")
  public static let proof = Role(rawValue: "proof")
  public static let report = Role(rawValue: "report")

  public let rawValue: String

  public init(rawValue: String) { self.rawValue = rawValue }
}

/// One thing that makes a bundle not whole.
public struct Fault: Equatable, Sendable {
  public enum Kind: String, Sendable {
    case missing = "is missing"
    case extra = "is not in the manifest"
    case link = "is a link"
    case size = "has another size than the manifest says"
    case content = "has another content than the manifest says"
  }

  public let path: String
  public let kind: Kind

  public init(path: String, kind: Kind) {
    self.path = path
    self.kind = kind
  }
}

extension Fault: CustomStringConvertible {
  public var description: String { "\(path) \(kind.rawValue)" }
}

/// The manifest's table of all files but manifest.json and manifest.sha256.
public struct FileTable: Sendable {
  public struct Entry: Equatable, Sendable, Decodable {
    public let sha256: String
    public let size: Int64
    public let role: Role
  }

  static let manifest = "manifest.json"
  static let digest = "manifest.sha256"
  private static let outside: Set = [manifest, digest]

  private let files: [String: Entry]
  private let passedOver: PassedOver

  /// Patterns for what other programs leave behind.
  private struct PassedOver: Sendable, Decodable {
    let files: [String]
    let folders: [String]
  }

  private struct File: Decodable {
    let files: [String: Entry]
    let passedOver: PassedOver
  }

  /// Reads the table of manifest.json. Throws `contradiction` for a path that could not be, or not on every disk.
  init(manifest bytes: [UInt8]) throws {
    let file = try BundleJSON.decode(File.self, from: bytes, path: Self.manifest)
    files = file.files
    passedOver = file.passedOver
    func fail(_ why: String) -> EngineError { .contradiction(place: Self.manifest, why: why) }
    var spelled: [String: String] = [:]
    for (path, entry) in files {
      if !Self.isPath(path) { throw fail("\(path) is not a path of a bundle") }
      if Self.outside.contains(path.lowercased()) { throw fail("\(path) cannot hold its own digest") }
      if entry.size < 0 || entry.sha256.count != 64 { throw fail("the size or the sha256 of \(path) is none") }
      let parts = path.split(separator: "/")
      for length in 1...parts.count {
        let name = parts.prefix(length).joined(separator: "/")
        if let other = spelled.updateValue(name, forKey: name.lowercased()), other != name {
          throw fail("\(min(other, name)) and \(max(other, name)) differ in case alone")
        }
        if length < parts.count, files[name] != nil { throw fail("\(name) is both a file and a folder") }
      }
    }
  }

  public var paths: [String] { files.keys.sorted() }

  public subscript(path: String) -> Entry? { files[path] }

  var runtimeID: String { id { $0 == .runtime } }

  var bundleID: String { id { $0 != .report } }

  private func id(of roles: (Role) -> Bool) -> String {
    let lines = paths.compactMap { path in  // paths are ASCII: sorted they are in the order of their bytes
      files[path].flatMap { roles($0.role) ? "\($0.sha256)  \(path)\n" : nil }
    }
    return SHA256.hex(of: Array(lines.joined().utf8))
  }

  /// Tells what is not right among the files `found`, a path to its size, or nil for a link or another odd file.
  /// Contents are not looked at.
  func faults(found: [String: Int64?]) -> [Fault] {
    var faults: [Fault] = []
    for (path, size) in found {
      if let entry = files[path] {
        if size == nil {
          faults.append(Fault(path: path, kind: .link))
        } else if size != entry.size {
          faults.append(Fault(path: path, kind: .size))
        }
      } else if Self.outside.contains(path) {
        if size == nil { faults.append(Fault(path: path, kind: .link)) }
      } else if !isPassedOver(path) {
        faults.append(Fault(path: path, kind: .extra))
      }
    }
    for (role, all) in Dictionary(grouping: files.keys, by: { files[$0]?.role }) {
      let missing = all.filter { found[$0] == nil }
      if role == .runtime || missing.count < all.count {
        faults += missing.map { Fault(path: $0, kind: .missing) }
      }
    }
    return faults.sorted { $0.path < $1.path }
  }

  /// Whether a file that the table does not name is what other programs leave behind.
  func isPassedOver(_ path: String) -> Bool {
    var folders = path.lowercased().split(separator: "/")
    let name = folders.removeLast()
    return passedOver.files.contains { Self.matches($0, String(name)) }
      || folders.contains { folder in passedOver.folders.contains { Self.matches($0, String(folder)) } }
  }

  /// Whether a file of a bundle can have this path.
  static func isPath(_ path: String) -> Bool {
    guard path.utf8.count <= 240 else { return false }
    return path.split(separator: "/", omittingEmptySubsequences: false).allSatisfy { part in
      guard let first = part.utf8.first, let last = part.utf8.last else { return false }
      let isOfSet = part.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
          true
        default: false
        }
      }
      return isOfSet && first != UInt8(ascii: ".") && first != UInt8(ascii: "-") && last != UInt8(ascii: ".")
    }
  }

  /// Whether a pattern stands for a name: `*` for any characters, `?` for one.
  static func matches(_ pattern: String, _ name: String) -> Bool {
    let (pattern, name) = (Array(pattern.unicodeScalars), Array(name.unicodeScalars))
    var (p, n) = (0, 0)
    var star: (pattern: Int, name: Int)?  // where the last `*` was, and where the name goes on behind it
    while n < name.count {
      if p < pattern.count, pattern[p] == "*" {
        star = (p, n)
        p += 1
      } else if p < pattern.count, pattern[p] == "?" || pattern[p] == name[n] {
        p += 1
        n += 1
      } else if let last = star {
        star = (last.pattern, last.name + 1)
        p = last.pattern + 1
        n = last.name + 1
      } else {
        return false
      }
    }
    return pattern[p...].allSatisfy { $0 == "*" }
  }
}
