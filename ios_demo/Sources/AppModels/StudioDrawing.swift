import Foundation
import PocketDiffusion

/// Drawing, the photo to start from, and the self-test.
extension Studio {
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
      defer { if self.failedInBackground == nil { self.mark.end() } }
      do {
        self.keep(try await self.drawNow(wish, opened, work))
      } catch let error as EngineError where self.wasInBackground && error != .cancelled {
        if self.isInBackground {
          self.failedInBackground = wish  // an app in the background may not use the GPU
        } else {
          self.keep(try await self.drawNow(wish, opened, work))
        }
      }
    }
  }

  /// Shows a picture, and writes it for the next start; where that fails, says so beside it.
  private func keep(_ drawn: Finished) {
    finished = drawn
    do { try keepFinished() } catch { show(error) }
  }

  /// Writes the last picture where it is not written yet. Throws `AppError.notKept`.
  public func keepFinished() throws {
    guard finished?.isKept == false else { return }
    do { try finished?.keep() } catch { throw AppError.notKept(said: error.localizedDescription) }
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
        let folder = folders.support.appendingPathComponent("last")
        return Finished(drawn, by: wish, secondsPerStep: work.secondsPerStep, folder: folder)
      }
    }
    throw EngineError.cancelled
  }

  /// The generator that was used last, or another one, before which the last one gives its memory back.
  private func generator(for wish: Wish, _ opened: Opened) async throws -> Generator {
    let units = opened.units(wished: wish.unit)
    if let held = generator, held.units == units, held.leastMemory == wish.leastMemory { return held.generator }
    await generator?.generator.close()
    let made = try opened.generator(units: units, leastMemory: wish.leastMemory)
    generator = (units, wish.leastMemory, made)
    return made
  }

  /// Takes a photo's file; nil: none from now on.
  public func usePhoto(_ data: Data?) async {
    do {
      if let data { try photoFile.keep(data) } else { photoFile.remove() }
      let isShown = await showPhoto()
      if data != nil && !isShown && opened?.pipeline.takesPicture == true { throw AppError.photoUnreadable }
    } catch {
      photoFile.remove()
      show(error)
    }
  }

  /// Reads the photo that is kept, and cuts it for the bundle, on another thread. Tells whether there is one, or whether
  /// another photo or bundle was chosen meanwhile, which is shown instead.
  @discardableResult func showPhoto() async -> Bool {
    photosRead += 1
    let turn = photosRead
    guard photoFile.isThere, let opened, opened.pipeline.takesPicture else {
      photo = nil
      return false
    }
    let (size, decode, file) = (opened.pipeline.picture, phone.decodePhoto, photoFile)
    let read = await Task.detached(priority: .userInitiated) { () -> Picture? in
      let most = max(size.width, size.height) * Photo.spare
      guard let picture = try? decode(file.read(), most) else { return nil }
      return Photo.cut(picture, width: size.width, height: size.height)
    }.value
    if turn != photosRead { return true }
    photo = read
    return read != nil
  }

  private func readPhoto(for opened: Opened) async throws -> Picture {
    if let photo { return photo }
    await showPhoto()
    guard let photo else { throw AppError.photoUnreadable }
    return photo
  }

  /// Runs the bundle's vectors, recorded calls and picture on this phone. What fails while the app is in the background,
  /// where iOS lets no app use the GPU, says nothing of the model: it is tested again when the app is seen.
  public func test() {
    guard let opened, work == nil else { return }
    testFailedInBackground = false
    begin(Work(.test, name: opened.place.name)) { work in
      repeat {
        self.wasInBackground = self.isInBackground
        do {
          if try await self.testNow(opened, work) { return }
        } catch let error as EngineError where self.wasInBackground && error != .cancelled {}
      } while !self.isInBackground
      self.testFailedInBackground = true
    }
  }

  /// Returns false where the report is to be thrown away.
  private func testNow(_ opened: Opened, _ work: Work) async throws -> Bool {
    let wish = Wish(prompt: "", seed: "0")  // on the units that draw
    let generator = try await generator(for: wish, opened)
    for try await event in SelfTest(generator, device: phone.device).run(cancellation: work.cancellation) {
      switch event {
      case .part(let subject, let done, let total): work.report(part: subject, done, of: total)
      case .finished(let report):
        if wasInBackground && !report.passed { return false }
        if !wasInBackground { verdicts.remember(report) }
        tested = try judge(report, opened)
      }
    }
    let testing = SelfTesting(opened: opened, generator: generator)
    if let recorded = try testing.recordedControls() {
      tested?.controls = recorded
    } else if let original = tested?.original {
      let drawn = try await testing.drawControls(beside: original, cancellation: work.cancellation) { kind, n, of in
        work.report(part: kind.rawValue, n, of: of)
      }
      tested?.controls = drawn
    }
    return true
  }

  private func judge(_ report: DeviceReport, _ opened: Opened) throws -> Tested {
    let file = folders.support.appendingPathComponent("device-report.json")
    try report.json().write(to: file, options: .atomic)
    return Tested(report: report, original: try opened.bundle.originalPicture(), controls: [], file: file)
  }
}
