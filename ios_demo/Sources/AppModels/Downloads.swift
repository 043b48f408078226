import Foundation
import PocketDiffusion

/// What a download says on its way.
public enum DownloadEvent: Sendable {
  /// 0 of 0: how many there are is not known.
  case bytes(done: Int64, total: Int64)
  /// The zip, which is the receiver's to move or remove.
  case finished(URL)
  /// It broke off; `resume` is what it needs to go on, where the server lets it.
  case broken(said: String, resume: Data?)
}

/// Loads one zip at a time, also while the app is in the background or is not running at all.
@MainActor public protocol DownloadSession: AnyObject {
  /// Begins anew, or goes on with what a broken one kept. The sequence ends with `finished` or `broken`.
  func load(_ address: URL, resume: Data?) -> AsyncStream<DownloadEvent>

  /// Listens to a download that went on while the app was not running; nil: there is none.
  func running() async -> (address: URL, events: AsyncStream<DownloadEvent>)?

  /// Stops it, which is then `broken`.
  func stop()
}

/// A download that broke off, kept between runs of the app.
public struct BrokenDownload: Codable, Equatable, Sendable {
  public let address: URL
  public let doneBytes: Int64
  let resume: Data?

  /// Whether it goes on from where it broke off; else it begins anew.
  public var canResume: Bool { resume != nil }

  static func read(in folder: URL) -> BrokenDownload? { kept(in: folder).read() }

  static func keep(_ download: BrokenDownload?, in folder: URL) {
    if let download { kept(in: folder).write(download) } else { kept(in: folder).remove() }
  }

  private static func kept(in folder: URL) -> Kept<BrokenDownload> {
    Kept(file: folder.appendingPathComponent("download.json"))
  }
}

extension Studio {
  /// Loads the zip at the address in the settings, and unpacks it. One of the same address that broke off goes on.
  public func download() {
    let text = settings.address.trimmingCharacters(in: .whitespacesAndNewlines)
    guard let address = URL(string: text), address.scheme == "https", address.host?.isEmpty == false else {
      return show(AppError.badAddress(text))
    }
    let resume = brokenDownload?.address == address ? brokenDownload?.resume : nil
    begin(Work(.download, name: address.lastPathComponent)) { work in
      try await self.follow(self.downloads.load(address, resume: resume), from: address, work)
    }
  }

  /// Goes on listening to a download that went on while the app was not running.
  public func followRunningDownload() async {
    guard work == nil, let (address, events) = await downloads.running() else { return }
    begin(Work(.download, name: address.lastPathComponent)) { work in
      try await self.follow(events, from: address, work)
    }
  }

  private func follow(_ events: AsyncStream<DownloadEvent>, from address: URL, _ work: Work) async throws {
    setBroken(nil)
    for await event in events {
      switch event {
      case .bytes(let done, let total): work.report(done, of: total)
      case .broken(let said, let resume):
        setBroken(BrokenDownload(address: address, doneBytes: work.done, resume: resume))
        if work.cancellation.isCancelled { throw EngineError.cancelled }
        throw EngineError.downloadBroken(doneBytes: resume == nil ? 0 : work.done, said: said)
      case .finished(let zip):
        defer { try? FileManager.default.removeItem(at: zip) }
        try await unpack(zip, name: folders.freeName(address.lastPathComponent), work)
        return
      }
    }
    throw EngineError.cancelled
  }

  private func setBroken(_ download: BrokenDownload?) {
    brokenDownload = download
    BrokenDownload.keep(download, in: folders.support)
  }
}
