import Foundation
import PocketDiffusion

/// What the app asks of the phone. Tests give their own.
public struct Phone: Sendable {
  public enum Heat: Sendable {
    case unknown, normal, warm, hot, critical
  }

  /// The bytes that the app may still take before the system ends it; nil: it does not say.
  public var leftMemory: @Sendable () -> Int64?
  /// The bytes of storage that are left at a folder; nil: it does not say.
  public var leftStorage: @Sendable (URL) -> Int64?
  public var heat: @Sendable () -> Heat
  /// Whether the phone saves power, and is slower.
  public var isSavingPower: @Sendable () -> Bool
  /// Lets the app read a folder that was picked in Files, until `endAccess`.
  public var beginAccess: @Sendable (URL) -> Bool
  public var endAccess: @Sendable (URL) -> Void
  /// What finds a picked folder again at the next start.
  public var bookmark: @Sendable (URL) throws -> Data
  /// The folder of a bookmark, and whether it asks to be made anew: the folder was moved, or the system updated.
  public var resolve: @Sendable (Data) throws -> (folder: URL, isStale: Bool)
  /// Makes a picture, upright and over white, of a photo's file, with about so many pixels along the longer side at most.
  /// Throws `AppError.photoUnreadable`. It takes a while: not for the main thread.
  public var decodePhoto: @Sendable (_ file: Data, _ mostPixels: Int) throws -> Picture
  public var device: Device

  /// This phone.
  public static func current(app: ProgramVersion) -> Phone {
    Phone(
      leftMemory: DeviceMemory.available, leftStorage: Self.leftStorage, heat: Self.heatNow,
      isSavingPower: Self.saves,
      beginAccess: Self.begin, endAccess: Self.end, bookmark: Self.makeBookmark, resolve: Self.read,
      decodePhoto: Photo.decode, device: .current(app: app))
  }

  @Sendable private static func leftStorage(at folder: URL) -> Int64? {
    let facts = try? FileManager.default.attributesOfFileSystem(forPath: folder.path)
    return (facts?[.systemFreeSize] as? NSNumber)?.int64Value
  }

  #if canImport(Darwin)
    @Sendable private static func heatNow() -> Heat {
      switch ProcessInfo.processInfo.thermalState {
      case .nominal: .normal
      case .fair: .warm
      case .serious: .hot
      case .critical: .critical
      @unknown default: .unknown
      }
    }

    @Sendable private static func saves() -> Bool { ProcessInfo.processInfo.isLowPowerModeEnabled }

    @Sendable private static func begin(_ folder: URL) -> Bool { folder.startAccessingSecurityScopedResource() }

    @Sendable private static func end(_ folder: URL) { folder.stopAccessingSecurityScopedResource() }

    @Sendable private static func makeBookmark(_ folder: URL) throws -> Data { try folder.bookmarkData() }

    @Sendable private static func read(_ bookmark: Data) throws -> (folder: URL, isStale: Bool) {
      var isStale = false
      let folder = try URL(resolvingBookmarkData: bookmark, bookmarkDataIsStale: &isStale)
      return (folder, isStale)
    }
  #else  // no sandbox: a path is enough
    @Sendable private static func heatNow() -> Heat { .unknown }

    @Sendable private static func saves() -> Bool { false }

    @Sendable private static func begin(_ folder: URL) -> Bool { true }

    @Sendable private static func end(_ folder: URL) {}

    @Sendable private static func makeBookmark(_ folder: URL) -> Data { Data(folder.path.utf8) }

    @Sendable private static func read(_ bookmark: Data) -> (folder: URL, isStale: Bool) {
      (URL(fileURLWithPath: String(decoding: bookmark, as: UTF8.self)), false)
    }
  #endif
}

extension Phone.Heat {
  public var phrase: Phrase {
    switch self {
    case .unknown: Phrase(.heatUnknown)
    case .normal: Phrase(.heatNormal)
    case .warm: Phrase(.heatWarm)
    case .hot: Phrase(.heatHot)
    case .critical: Phrase(.heatCritical)
    }
  }
}
