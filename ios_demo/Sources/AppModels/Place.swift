import Foundation
import PocketDiffusion

/// A folder that is or should be a bundle.
public struct Place: Equatable, Hashable, Sendable, Identifiable {
  public enum Origin: String, Sendable {
    /// Built into the app.
    case shipped
    /// In the app's folder that Files and a computer see.
    case shared
    /// Unpacked from a zip, picked or downloaded.
    case own
    /// A folder elsewhere, picked in Files.
    case picked
  }

  public let name: String
  public let folder: URL
  public let origin: Origin

  public init(folder: URL, origin: Origin) {
    name = folder.lastPathComponent
    self.folder = folder
    self.origin = origin
  }

  /// The same at the next start, when the app's folders may have moved.
  public var id: String { "\(origin.rawValue)/\(name)" }
}

/// What a look at a place gave: the bundle's name and size, or why it is none. Digests are not compared.
public struct Inspected: Sendable, Identifiable {
  public let place: Place
  public let model: String?
  public let target: String?
  public let bytes: Int64
  public let problem: Message?

  public var id: String { place.id }

  init(_ place: Place) {
    self.place = place
    do {
      let manifest = try ModelBundle(folder: place.folder).manifest
      model = manifest.model.name
      target = manifest.target.title
      bytes = manifest.files.paths.reduce(0) { sum, path in
        let file = place.folder.appendingPathComponent(path)
        let size = (try? FileManager.default.attributesOfItem(atPath: file.path))?[.size] as? NSNumber
        return sum + (size?.int64Value ?? 0)
      }
      problem = nil
    } catch {
      model = nil
      target = nil
      bytes = 0
      problem = Message(error)
    }
  }
}

/// The folders of the app.
public struct AppFolders: Sendable {
  /// What is built into the app.
  let shipped: URL?
  /// What Files and a computer see.
  let shared: URL?
  /// What the app keeps for itself.
  let support: URL
  /// What can be made again. Backups pass over it, and the system may empty it.
  let caches: URL

  public init(shipped: URL?, shared: URL?, support: URL, caches: URL) {
    self.shipped = shipped
    self.shared = shared
    self.support = support
    self.caches = caches
  }

  /// Those of this app on an iPhone.
  public static func ofApp() throws -> AppFolders {
    let files = FileManager.default
    return AppFolders(
      shipped: Bundle.main.resourceURL?.appendingPathComponent("Bundles"),
      shared: files.urls(for: .documentDirectory, in: .userDomainMask).first,
      support: try files.url(for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true),
      caches: try files.url(for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true))
  }

  var own: URL { support.appendingPathComponent("Bundles") }

  /// Where compiled models are kept.
  public var compiled: URL { caches.appendingPathComponent("Compiled") }

  /// Makes a folder that backups pass over: its files are large, and can be had again.
  func makeOwn() throws {
    try FileManager.default.createDirectory(at: own, withIntermediateDirectories: true)
    #if canImport(Darwin)
      var (folder, values) = (own, URLResourceValues())
      values.isExcludedFromBackup = true
      try folder.setResourceValues(values)
    #endif
  }

  /// Every folder in which a bundle may lie. Names that begin with a point are work that is not done.
  func places() -> [Place] {
    [(shipped, Place.Origin.shipped), (shared, .shared), (own, .own)].flatMap { parent, origin in
      guard let parent else { return [Place]() }
      let names = (try? FileManager.default.contentsOfDirectory(atPath: parent.path)) ?? []
      return names.sorted().filter { !$0.hasPrefix(".") }.map { parent.appendingPathComponent($0) }.filter { folder in
        var isFolder: ObjCBool = false
        return FileManager.default.fileExists(atPath: folder.path, isDirectory: &isFolder) && isFolder.boolValue
      }.map { Place(folder: $0, origin: origin) }
    }
  }

  /// A name under which no bundle of the app's own lies yet.
  func freeName(_ wished: String) -> String {
    let name = Self.clean(wished)
    let taken = Set((try? FileManager.default.contentsOfDirectory(atPath: own.path)) ?? [])
    return ([name] + (2...taken.count + 2).map { "\(name)-\($0)" }).first { !taken.contains($0) } ?? name
  }

  private static func clean(_ name: String) -> String {
    let stem = name.hasSuffix(".zip") ? String(name.dropLast(4)) : name
    let words = stem.split { !($0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0))) }
    let clean = words.joined(separator: "-").trimmingCharacters(in: CharacterSet(charactersIn: ".-"))
    return clean.isEmpty ? "bundle" : clean
  }
}
