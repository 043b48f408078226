import Foundation
import Observation
import PocketDiffusion

/// What the app is doing and has done. It outlives every screen, so that a rotation loses nothing. One thing is done at
/// a time, on threads of its own; all that is read here is written on the main actor.
@MainActor @Observable public final class Studio {
  public let phone: Phone
  public var settings: Settings { didSet { keptSettings.write(settings) } }

  /// The bundle that is drawn with.
  public internal(set) var opened: Opened?
  /// What is done now.
  public private(set) var work: Work?
  public internal(set) var finished: Finished?
  public internal(set) var tested: Tested?
  /// What went wrong last, until it was dismissed or the next thing begins.
  public internal(set) var problem: Message?
  /// What the system ended in the midst, in an earlier run of the app.
  public internal(set) var interrupted: Wish?
  /// What lies in the app's folders, and the folder that was picked.
  public internal(set) var bundles: [Inspected] = []
  /// The photo to start from, cut as the bundle takes it.
  public internal(set) var photo: Picture?
  /// The download that broke off and can go on; nil: none.
  public internal(set) var brokenDownload: BrokenDownload?

  let folders: AppFolders
  let engines: [any GraphEngine]
  let digests: DigestMemory
  let verdicts: UnitVerdicts
  private let keptSettings: Kept<Settings>
  let keptPicked: Kept<Data>
  let mark: Interruption
  let photoFile: Photo
  @ObservationIgnored var generator: (units: [String: String], leastMemory: Bool, generator: Generator)?
  @ObservationIgnored private var running: Task<Void, Never>?
  @ObservationIgnored var accessed: URL?
  @ObservationIgnored var photosRead = 0
  @ObservationIgnored var isInBackground = false
  @ObservationIgnored var wasInBackground = false  // since the drawing or the self-test began
  @ObservationIgnored var failedInBackground: Wish?
  @ObservationIgnored var testFailedInBackground = false
  @ObservationIgnored var downloads: any DownloadSession

  public init(folders: AppFolders, engines: [any GraphEngine], phone: Phone, downloads: any DownloadSession) {
    self.folders = folders
    self.engines = engines
    self.phone = phone
    self.downloads = downloads
    let support = folders.support
    digests = DigestMemory(store: support.appendingPathComponent("digests.json"))
    verdicts = UnitVerdicts(os: phone.device.os, store: support.appendingPathComponent("units.json"))
    keptSettings = Kept(file: support.appendingPathComponent("settings.json"))
    keptPicked = Kept(file: support.appendingPathComponent("picked.json"))
    mark = Interruption(folder: support)
    photoFile = Photo(folder: support)
    settings = keptSettings.read() ?? Settings()
    finished = Finished(in: support.appendingPathComponent("last"))
    interrupted = mark.read()
    brokenDownload = BrokenDownload.read(in: support)
    mark.end()
  }

  /// Opens the bundle that was chosen last, or else the first that is whole.
  public func start() async {
    await look()
    guard work == nil, opened == nil else { return }
    let whole = bundles.filter { $0.problem == nil }
    if let place = (whole.first { $0.id == settings.bundle } ?? whole.first)?.place { open(place) }
    await idle()
  }

  /// Ends when nothing is done any more.
  public func idle() async {
    while let task = running {
      await task.value
      if task == running { running = nil }
    }
  }

  /// Closes what can be opened again, once nothing is drawn.
  public func freeMemory() async {
    if work == nil { await generator?.generator.close() }
  }

  /// The app is no longer seen: what is drawn goes on as long as the system lets it.
  public func enterBackground() async {
    isInBackground = true
    wasInBackground = true
    await freeMemory()
  }

  /// The app is seen again: a drawing that failed meanwhile is begun again, with the same seed; so is a self-test.
  public func enterForeground() {
    isInBackground = false
    if testFailedInBackground { test() }
    guard let wish = failedInBackground else { return }
    failedInBackground = nil
    draw(wish)
  }

  func begin(_ own: Work, _ task: @escaping @MainActor (Work) async throws -> Void) {
    if work != nil { return }
    problem = nil
    work = own
    running = Task {
      do {
        try await task(own)
      } catch EngineError.cancelled {
      } catch {
        problem = Message(error)
      }
      work = nil
    }
  }

  /// Does `task` on another thread. What it reports is shown where it is news: a hundredth more than before.
  @discardableResult func offMain<Result: Sendable>(
    _ work: Work, _ task: @escaping @Sendable (_ report: @escaping (Int64, Int64) -> Void) throws -> Result
  ) async throws -> Result {
    let (reports, says) = AsyncStream.makeStream(of: (Int64, Int64).self, bufferingPolicy: .bufferingNewest(1))
    let listener = Task {
      for await (done, total) in reports { work.report(done, of: total) }
    }
    defer { says.finish() }
    _ = listener
    return try await Task.detached(priority: .userInitiated) {
      var said: Int64 = -1
      return try task { done, total in
        guard total <= 0 || (done - said) * 100 >= total || done == total else { return }
        said = done
        says.yield((done, total))
      }
    }.value
  }
}
