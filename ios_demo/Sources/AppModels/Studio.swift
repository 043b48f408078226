import Foundation
import Observation
import PocketDiffusion

/// What the app is doing and has done. It outlives every screen, so that a rotation loses nothing. One thing is done at
/// a time, on threads of its own; all that is read here is written on the main actor.
@MainActor @Observable public final class Studio {
  public let phone: Phone
  public var settings: Settings { didSet { keptSettings.write(settings) } }

  /// The bundle that is drawn with.
  public private(set) var opened: Opened?
  /// What is done now.
  public private(set) var work: Work?
  public private(set) var finished: Finished?
  public private(set) var tested: Tested?
  /// What went wrong last, until it was dismissed or the next thing begins.
  public private(set) var problem: Message?
  /// What the system ended in the midst, in an earlier run of the app.
  public private(set) var interrupted: Wish?
  /// What lies in the app's folders, and the folder that was picked.
  public private(set) var bundles: [Inspected] = []
  /// The photo to start from, cut as the bundle takes it.
  public private(set) var photo: Picture?
  /// The download that broke off and can go on; nil: none.
  public internal(set) var brokenDownload: BrokenDownload?

  let folders: AppFolders
  private let engines: [any GraphEngine]
  private let digests: DigestMemory
  private let keptSettings: Kept<Settings>
  private let keptPicked: Kept<Data>
  private let mark: Interruption
  private let photoFile: Photo
  @ObservationIgnored private var generator: (unit: String?, leastMemory: Bool, generator: Generator)?
  @ObservationIgnored private var running: Task<Void, Never>?
  @ObservationIgnored private var accessed: URL?
  @ObservationIgnored private var isInBackground = false
  @ObservationIgnored private var wasInBackground = false  // since the drawing began
  @ObservationIgnored private var failedInBackground: Wish?
  @ObservationIgnored var downloads: any DownloadSession

  public init(folders: AppFolders, engines: [any GraphEngine], phone: Phone, downloads: any DownloadSession) {
    self.folders = folders
    self.engines = engines
    self.phone = phone
    self.downloads = downloads
    let support = folders.support
    digests = DigestMemory(store: support.appendingPathComponent("digests.json"))
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

  // MARK: bundles

  /// Looks again at what lies in the folders.
  public func look() async {
    var places = folders.places()
    if let picked = pickedPlace() { places.append(picked) }
    bundles = await Task.detached { [phone] in
      places.map { place in
        let began = place.origin == .picked && phone.beginAccess(place.folder)
        defer { if began { phone.endAccess(place.folder) } }
        return Inspected(place)
      }
    }.value
  }

  /// Compares all files of a bundle with its manifest, and draws with it from now on.
  public func open(_ place: Place) {
    begin(Work(.open, name: place.name)) { work in try await self.openNow(place, work) }
  }

  /// Takes a zip or a folder that was picked in Files.
  public func pick(_ url: URL) {
    if url.pathExtension.lowercased() == "zip" {
      let name = folders.freeName(url.lastPathComponent)
      begin(Work(.unpack, name: name)) { work in
        let began = self.phone.beginAccess(url)
        defer { if began { self.phone.endAccess(url) } }
        try await self.unpack(url, name: name, work)
      }
    } else {
      begin(Work(.open, name: url.lastPathComponent)) { work in
        let began = self.phone.beginAccess(url)
        defer { if began { self.phone.endAccess(url) } }
        self.keptPicked.write(try self.phone.bookmark(url))
        try await self.openNow(Place(folder: url, origin: .picked), work)
        await self.look()
      }
    }
  }

  /// Removes a bundle that the app may remove: what is built in or lies elsewhere stays, the latter is forgotten.
  public func delete(_ place: Place) async {
    if work != nil { return }
    if opened?.place == place { await closeBundle() }
    switch place.origin {
    case .own, .shared: try? FileManager.default.removeItem(at: place.folder)
    case .picked: keptPicked.remove()
    case .shipped: return
    }
    await look()
  }

  func unpack(_ zip: URL, name: String, _ work: Work) async throws {
    try folders.makeOwn()
    let folder = folders.own.appendingPathComponent(name)
    let (digests, left, cancellation) = (digests, phone.leftStorage, work.cancellation)
    try await inBackground(work) { report in
      try BundleImport(folder: folder, digests: digests, leftBytes: left).unzip(zip) { done, total in
        try cancellation.check()
        report(done, total)
      }
    }
    await look()
    try await openNow(Place(folder: folder, origin: .own), work)
  }

  private func pickedPlace() -> Place? {
    guard let bookmark = keptPicked.read(), let folder = try? phone.resolve(bookmark) else { return nil }
    return Place(folder: folder, origin: .picked)
  }

  private func openNow(_ place: Place, _ work: Work) async throws {
    await closeBundle()
    if settings.bundle != place.id { settings.forgetBundle() }
    if place.origin == .picked, phone.beginAccess(place.folder) { accessed = place.folder }
    let (digests, engines, memory, cancellation) = (digests, engines, phone.leftMemory, work.cancellation)
    do {
      opened = try await inBackground(work) { report in
        try Opened(
          place, digests: digests, engines: engines, memory: memory, cancellation: cancellation, onProgress: report)
      }
    } catch {
      await closeBundle()
      throw error
    }
    settings.bundle = place.id
    showPhoto()
  }

  private func closeBundle() async {
    await generator?.generator.close()
    generator = nil
    opened = nil
    tested = nil
    if let accessed { phone.endAccess(accessed) }
    accessed = nil
  }

  // MARK: drawing

  /// Draws what the settings say. With `keepsSeed` the next picture has the same seed, else a new one.
  public func draw() {
    guard let opened, work == nil else { return }
    draw(Wish(settings, pipeline: opened.pipeline, fromPhoto: photo != nil))
    if !settings.keepsSeed { settings.newSeed() }
  }

  public func draw(_ wish: Wish) {
    guard let opened, work == nil else { return }
    interrupted = nil
    wasInBackground = isInBackground
    begin(Work(.draw, name: wish.prompt)) { work in
      self.mark.begin(wish)
      defer { self.mark.end() }
      do {
        self.finished = try await self.drawNow(wish, opened, work)
      } catch let error as EngineError where self.wasInBackground && error != .cancelled {
        if self.isInBackground {
          self.failedInBackground = wish  // an app in the background may not use the GPU
        } else {
          self.finished = try await self.drawNow(wish, opened, work)
        }
      }
    }
  }

  /// Draws again what the system ended, with as little memory as can be.
  public func drawInterrupted() {
    guard var wish = interrupted else { return }
    wish.leastMemory = true
    draw(wish)
  }

  public func cancel() {
    work?.cancellation.cancel()
    if work?.kind == .download { downloads.stop() }
  }

  public func dismiss() {
    problem = nil
    interrupted = nil
  }

  /// Tells the person of something that went wrong on a screen.
  public func show(_ error: any Error) { problem = Message(error) }

  private func drawNow(_ wish: Wish, _ opened: Opened, _ work: Work) async throws -> Finished {
    let start = wish.fromPhoto ? try await readPhoto(for: opened) : nil
    let generator = try await generator(for: wish, opened)
    for try await event in generator.draw(wish.request(photo: start), cancellation: work.cancellation) {
      work.report(event)
      if case .finished(let drawn) = event {
        return try Finished(
          drawn, secondsPerStep: work.secondsPerStep, folder: folders.support.appendingPathComponent("last"))
      }
    }
    throw EngineError.cancelled
  }

  /// The generator that was used last, or another one, before which the last one gives its memory back.
  private func generator(for wish: Wish, _ opened: Opened) async throws -> Generator {
    if let held = generator, held.unit == wish.unit, held.leastMemory == wish.leastMemory { return held.generator }
    await generator?.generator.close()
    let made = try opened.generator(unit: wish.unit, leastMemory: wish.leastMemory)
    generator = (wish.unit, wish.leastMemory, made)
    return made
  }

  // MARK: the photo to start from

  /// Takes a photo's file; nil: none from now on.
  public func usePhoto(_ data: Data?) {
    do {
      if let data { try photoFile.keep(data) } else { photoFile.remove() }
      showPhoto()
      if data != nil && photo == nil && opened?.pipeline.takesPicture == true { throw AppError.photoUnreadable }
    } catch {
      photoFile.remove()
      show(error)
    }
  }

  private func showPhoto() {
    guard photoFile.isThere, let opened, opened.pipeline.takesPicture, let data = try? photoFile.read(),
      let picture = try? phone.decodePhoto(data)
    else {
      photo = nil
      return
    }
    let size = opened.pipeline.picture
    photo = Photo.cut(picture, width: size.width, height: size.height)
  }

  private func readPhoto(for opened: Opened) async throws -> Picture {
    if let photo { return photo }
    showPhoto()
    guard let photo else { throw AppError.photoUnreadable }
    return photo
  }

  // MARK: is it the same model?

  /// Runs the bundle's vectors, recorded calls and picture on this phone.
  public func test() {
    guard let opened else { return }
    begin(Work(.test, name: opened.place.name)) { work in
      let wish = Wish(prompt: "", seed: "0")  // on the units that the bundle was made for
      let generator = try await self.generator(for: wish, opened)
      for try await event in SelfTest(generator, device: self.phone.device).run(cancellation: work.cancellation) {
        switch event {
        case .part(let subject, let done, let total): work.report(part: subject, done, of: total)
        case .finished(let report): self.tested = try self.judge(report, opened)
        }
      }
      let testing = SelfTesting(opened: opened, generator: generator)
      if let recorded = try testing.recordedControls() {
        self.tested?.controls = recorded
      } else if let original = self.tested?.original {
        let drawn = try await testing.drawControls(beside: original, cancellation: work.cancellation) { kind, n, of in
          work.report(part: kind.rawValue, n, of: of)
        }
        self.tested?.controls = drawn
      }
    }
  }

  private func judge(_ report: DeviceReport, _ opened: Opened) throws -> Tested {
    let file = folders.support.appendingPathComponent("device-report.json")
    try report.json().write(to: file, options: .atomic)
    return Tested(report: report, original: try opened.bundle.originalPicture(), controls: [], file: file)
  }

  // MARK: the phone

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

  /// The app is seen again: a drawing that failed meanwhile is begun again, with the same seed.
  public func enterForeground() {
    isInBackground = false
    guard let wish = failedInBackground else { return }
    failedInBackground = nil
    draw(wish)
  }

  // MARK: work

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
  @discardableResult private func inBackground<Result: Sendable>(
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
