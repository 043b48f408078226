import Foundation
import PocketDiffusion
import XCTest

@testable import AppModels

/// The app without its views: onnxruntime draws, on Linux.
@MainActor final class StudioTests: XCTestCase {
  func testDrawsWithABundleThatWasPicked() async throws {
    let app = try TestApp(self)
    let opened = try await app.open()
    app.studio.settings.prompt = "red apple"
    app.studio.settings.seed = "7"
    app.studio.settings.steps = 4
    app.studio.draw()
    XCTAssertEqual(app.studio.work?.kind, .draw)
    XCTAssertFalse(app.studio.canDraw, "one thing at a time")
    let work = try XCTUnwrap(app.studio.work)
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    XCTAssertNotNil(work.preview)
    XCTAssertEqual(work.fraction, 1)
    XCTAssertNotNil(work.secondsPerStep)
    let finished = try XCTUnwrap(app.studio.finished)
    XCTAssertEqual(finished.picture.width, opened.pipeline.picture.width)
    XCTAssertEqual(finished.facts["seed"], "7")
    XCTAssertNotEqual(app.studio.settings.seed, "7", "the next picture has another seed")
    XCTAssertNotNil(finished.made)
    let bytes = Array(try Data(contentsOf: finished.file))
    XCTAssertEqual(try PNG.read(bytes, place: "picture"), finished.picture)
    XCTAssertEqual(try PNG.readFacts(bytes, place: "picture")["prompt"], "red apple")
    XCTAssertEqual(finished.file.lastPathComponent, "red-apple-7.png")
  }

  func testTheSettingsReachThePicture() async throws {
    let app = try TestApp(self)
    try await app.open()
    let first = try await draw(app) { $0.keepsSeed = true }
    let same = try await draw(app) { _ in }
    XCTAssertEqual(first.picture, same.picture, "the same seed, the same picture")
    let changes: [(inout Settings) -> Void] = [
      { $0.negativePrompt = "green" }, { $0.guidance = 2 }, { $0.sampler = "euler" }, { $0.steps = 5 },
      { $0.prompt = "blue heart" },
    ]
    for change in changes {
      let other = try await draw(app) { settings in
        settings.negativePrompt = ""
        settings.guidance = nil
        settings.sampler = nil
        change(&settings)
      }
      XCTAssertNotEqual(other.picture, first.picture, "\(app.studio.settings)")
    }
  }

  func testAPhotoIsKeptAndStartsAPicture() async throws {
    let app = try TestApp(self)
    try await app.open()
    let plain = try await draw(app) { $0.keepsSeed = true }
    let photo = Picture(width: 48, height: 80, rgb: (0..<48 * 80 * 3).map { UInt8($0 * 7 % 256) })
    await app.studio.usePhoto(Data(PNG.write(photo)))
    XCTAssertEqual(app.studio.photo?.width, 48)
    XCTAssertEqual(app.studio.photo?.height, 48, "the middle, in the bundle's proportions")
    let drawn = try await draw(app) { $0.strength = 0.5 }
    XCTAssertNotEqual(drawn.picture, plain.picture)
    XCTAssertEqual(drawn.facts["strength"], "0.5")
    app.restart()
    await app.studio.start()
    XCTAssertEqual(app.studio.photo?.height, 48)
    await app.studio.usePhoto(nil)
    XCTAssertNil(app.studio.photo)
    await app.studio.usePhoto(Data("no picture".utf8))
    XCTAssertEqual(app.studio.problem, Message(AppError.photoUnreadable))
    XCTAssertNil(app.studio.photo)
  }

  /// A photo of a camera takes a while to read: the screen does not wait, and no more is read than the bundle takes.
  func testAPhotoIsReadBesideTheScreenAndNoLargerThanNeeded() async throws {
    let app = try TestApp(self)
    let calls = Calls()
    calls.add(Self.thread)
    app.phone.decodePhoto = { data, most in
      calls.add("\(Self.thread) \(most)")
      return try PNG.read(Array(data), place: "photo")
    }
    app.restart()
    let opened = try await app.open()
    let photo = Picture(width: 60, height: 50, rgb: [UInt8](repeating: 9, count: 60 * 50 * 3))
    await app.studio.usePhoto(Data(PNG.write(photo)))
    XCTAssertEqual(app.studio.photo?.height, 50)
    let size = opened.pipeline.picture
    XCTAssertEqual(calls.all, ["main", "other \(4 * max(size.width, size.height))"])
    async let late: Void = app.studio.usePhoto(Data(PNG.write(photo)))
    await app.studio.usePhoto(nil)
    await late
    XCTAssertEqual(app.studio.photo != nil, app.studio.photoFile.isThere, "what is shown is what is kept")
  }

  func testWhatWasChosenAndDrawnIsThereAtTheNextStart() async throws {
    let app = try TestApp(self)
    try await app.open()
    let drawn = try await draw(app) { $0.sampler = "euler" }
    app.restart()
    XCTAssertEqual(app.studio.finished?.picture, drawn.picture)
    XCTAssertEqual(app.studio.finished?.prompt, "red apple")
    await app.studio.start()
    XCTAssertEqual(app.studio.opened?.place.origin, .picked)
    XCTAssertEqual(app.studio.settings.sampler, "euler")
    try app.copyBundle()
    await app.studio.look()
    let other = try XCTUnwrap(app.studio.bundles.first { $0.place.origin == .shared })
    app.studio.open(other.place)
    await app.studio.idle()
    XCTAssertNil(app.studio.settings.sampler, "another bundle may not have it")
  }

  func testADrawingIsCancelled() async throws {
    let app = try TestApp(self)
    try await app.open()
    app.studio.settings.steps = 50
    app.studio.draw()
    let work = try XCTUnwrap(app.studio.work)
    while work.done < 2 { try await Task.sleep(nanoseconds: 1_000_000) }
    app.studio.cancel()
    await app.studio.idle()
    XCTAssertLessThan(work.done, 50)
    XCTAssertNil(app.studio.finished)
    XCTAssertNil(app.studio.problem, "who cancels is told of no error")
    XCTAssertNil(app.studio.work)
    _ = try await draw(app) { _ in }
  }

  func testADrawingThatTheSystemEndedIsOfferedAgain() async throws {
    let app = try TestApp(self)
    try await app.open()
    app.studio.settings.prompt = "octopus"
    app.studio.settings.steps = 50
    app.studio.draw()
    let work = try XCTUnwrap(app.studio.work)
    while work.done < 1 { try await Task.sleep(nanoseconds: 1_000_000) }
    let ended = app.studio
    app.restart()  // as if the process had been killed
    XCTAssertEqual(app.studio.interrupted?.prompt, "octopus")
    ended.cancel()
    await ended.idle()
    await app.studio.start()
    app.studio.drawInterrupted()
    XCTAssertNil(app.studio.interrupted)
    await app.studio.idle()
    XCTAssertEqual(app.studio.finished?.prompt, "octopus")
    app.restart()
    XCTAssertNil(app.studio.interrupted)
  }

  func testADrawingThatFailsInTheBackgroundIsDrawnOnReturn() async throws {
    let app = try TestApp(self)
    try await app.open()
    app.studio.settings.prompt = "octopus"
    app.studio.settings.steps = 3
    await app.studio.enterBackground()
    app.engine.failsToRun = true  // iOS lets no app in the background use the GPU
    app.studio.draw()
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    XCTAssertNil(app.studio.finished)
    XCTAssertEqual(Interruption(folder: app.folders.support).read()?.prompt, "octopus", "if iOS ends the app now")
    app.engine.failsToRun = false
    app.studio.enterForeground()
    await app.studio.idle()
    XCTAssertEqual(app.studio.finished?.prompt, "octopus")
    await app.studio.freeMemory()
    app.studio.settings.steps = 20
    app.studio.draw()
    let work = try XCTUnwrap(app.studio.work)
    while work.done < 2 { try await Task.sleep(nanoseconds: 1_000_000) }
    app.engine.failsOnce = true  // it is told of the background when the app is back already
    await app.studio.enterBackground()
    app.studio.enterForeground()
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    XCTAssertEqual(app.studio.finished?.facts["steps"], "20")
    await app.studio.freeMemory()
    app.engine.failsToRun = true
    app.studio.draw()
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorEngine), "in the foreground it is told")
  }

  func testASelfTestThatFailsInTheBackgroundIsMadeAgainOnReturn() async throws {
    let app = try TestApp(self)
    try await app.open()
    app.studio.test()
    await app.studio.enterBackground()
    app.engine.failsToRun = true  // iOS lets no app in the background use the GPU
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    XCTAssertNil(app.studio.tested, "it says nothing of the model")
    app.engine.failsToRun = false
    app.studio.enterForeground()
    XCTAssertEqual(app.studio.work?.kind, .test)
    await app.studio.idle()
    XCTAssertEqual(app.studio.tested?.report.passed, true)
    app.studio.test()
    let work = try XCTUnwrap(app.studio.work)
    while work.done < 1 { try await Task.sleep(nanoseconds: 1_000_000) }
    await app.studio.enterBackground()
    app.engine.failsOnce = true  // it is told of the background when the app is back already
    app.studio.enterForeground()
    await app.studio.idle()
    XCTAssertFalse(app.engine.failsOnce)
    XCTAssertEqual(app.studio.tested?.report.passed, true)
    app.engine.failsOnce = true
    app.studio.test()
    await app.studio.idle()
    XCTAssertEqual(app.studio.tested?.report.passed, false, "in the foreground it is told")
  }

  func testTooLittleMemoryIsSaidBeforeDrawing() async throws {
    let app = try TestApp(self)
    app.phone.leftMemory = { 1 << 20 }
    app.restart()
    let opened = try await app.open()
    app.studio.draw()
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorMemory))
    XCTAssertEqual(app.studio.memory(opened)?.key, .memoryShort)
    app.phone.leftMemory = { 4 << 30 }
    app.restart()
    let again = try await app.open()
    XCTAssertEqual(app.studio.memory(again)?.key, .memory)
    _ = try await draw(app) { _ in }
  }

  func testChoicesAreThoseOfTheBundle() async throws {
    let app = try TestApp(self)
    let opened = try await app.open()
    XCTAssertTrue(opened.samplers.contains("pndm"))
    XCTAssertEqual(opened.units, ["cpu"])
    XCTAssertTrue(opened.badUnits.isEmpty && opened.unitNotes.isEmpty)
    XCTAssertEqual(app.studio.steps(opened), opened.pipeline.defaults.steps)
    XCTAssertEqual(app.studio.stepRange(opened).lowerBound, 1)
    XCTAssertEqual(app.studio.stepRange(opened).upperBound, Double(opened.pipeline.steps.mostSteps))
    for seed in ["0", "-9223372036854775808", "18446744073709551615"] {
      app.studio.settings.seed = seed
      XCTAssertTrue(app.studio.canDraw, seed)
    }
    for seed in ["", "1.5", "apple", "18446744073709551616"] {
      app.studio.settings.seed = seed
      XCTAssertFalse(app.studio.canDraw, seed)
    }
    app.studio.useSeed("12")
    app.studio.settings.steps = 3
    app.studio.useDefaults()
    XCTAssertNil(app.studio.settings.steps)
    XCTAssertEqual(app.studio.settings.seed, "12")
    app.studio.settings.guidance = 1
    XCTAssertEqual(app.studio.guidanceText(opened), Phrase(.guidanceNone))
  }

  /// The kit's U-Net is known to be wrong on the NPU.
  func testAUnitThatIsKnownToBeWrongIsSaidWithTheGraph() async throws {
    let app = try TestApp(self)
    app.engine.unitThatFails = "npu"
    let opened = try await app.open()
    XCTAssertEqual(opened.units, ["cpu"])
    let unet = try XCTUnwrap(opened.pipeline.graphs["unet"])
    let note = try XCTUnwrap(unet.units["npu"]?.note)
    XCTAssertEqual(
      app.studio.unitNotes(opened),
      [Phrase(.unitLeftOut, .phrase(Message.unit("npu")), .text(note), .text("unet"))])
  }

  /// A choice of an earlier version of the operating system, say: the unit is to be tested again.
  func testAUnitThatIsNoLongerKnownToBeRightIsNotKept() async throws {
    let app = try TestApp(self)
    app.engine.unitThatFails = "gpu"
    try await app.open()
    app.studio.settings.unit = "gpu"
    app.restart()
    XCTAssertEqual(app.studio.settings.unit, "gpu")
    await app.studio.start()
    let opened = try XCTUnwrap(app.studio.opened)
    XCTAssertNil(app.studio.settings.unit)
    XCTAssertEqual(app.studio.units(opened), ["cpu"])
  }

  func testAPromptThatIsTooLongIsSaid() async throws {
    let app = try TestApp(self)
    try await app.open()
    let drawn = try await draw(app) { $0.prompt = String(repeating: "apple ", count: 90) }
    XCTAssertEqual(drawn.notes.first?.key, .cut)
  }

  func testAPictureThatCannotBeWrittenIsShownAndTheOneBeforeStays() async throws {
    let app = try TestApp(self)
    try await app.open()
    let before = try await draw(app) { _ in }
    let files = FileManager.default
    let last = app.folders.support.appendingPathComponent("last")
    let aside = app.folders.support.appendingPathComponent("aside")
    try files.moveItem(at: last, to: aside)
    try Data().write(to: last)  // even root can write nothing into a file
    app.studio.settings.prompt = "blue heart"
    app.studio.draw()
    await app.studio.idle()
    XCTAssertEqual(app.studio.finished?.prompt, "blue heart")
    XCTAssertEqual(app.studio.finished?.isKept, false)
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorNotKept))
    XCTAssertThrowsError(try app.studio.keepFinished())
    try files.removeItem(at: last)
    try files.moveItem(at: aside, to: last)
    XCTAssertEqual(Finished(in: last)?.picture, before.picture)
    let inTheWay = try XCTUnwrap(app.studio.finished?.file)
    try files.createDirectory(at: inTheWay.appendingPathComponent("x"), withIntermediateDirectories: true)
    XCTAssertThrowsError(try app.studio.keepFinished(), "there is no room for the file")
    XCTAssertTrue(files.fileExists(atPath: before.file.path), "the one before goes when the new one is there")
    try files.removeItem(at: inTheWay)
    try app.studio.keepFinished()
    XCTAssertEqual(app.studio.finished?.isKept, true)
    XCTAssertEqual(try files.contentsOfDirectory(atPath: last.path), [inTheWay.lastPathComponent])
    app.restart()
    XCTAssertEqual(app.studio.finished?.prompt, "blue heart")
  }

  func testALongPromptOfLongLettersFitsIntoAFilesName() async throws {
    let app = try TestApp(self)
    try await app.open()
    let apple = "\u{938}\u{947}\u{902}"  // one letter of nine bytes
    XCTAssertEqual(apple.count, 1)
    let drawn = try await draw(app) { $0.prompt = String(repeating: apple, count: 90) }
    XCTAssertTrue(drawn.isKept)
    XCTAssertLessThanOrEqual(drawn.file.lastPathComponent.utf8.count, 255)
    XCTAssertTrue(drawn.file.lastPathComponent.hasPrefix(apple))
  }

  func testEachStayInTheBackgroundGivesItsOwnTimeBackOnce() async throws {
    let app = try TestApp(self)
    try await app.open()
    var (ids, ended): (Int, [Int]) = (0, [])
    var expire: [@MainActor @Sendable () -> Void] = []
    let time = BackgroundTime<Int>(
      begin: { expired in
        expire.append(expired)
        ids += 1
        return ids
      }, end: { ended.append($0) })
    app.studio.settings.steps = 50
    app.studio.draw()
    let first = time.keepAlive(app.studio)
    let second = time.keepAlive(app.studio)
    expire[0]()
    XCTAssertEqual(ended, [1], "iOS ends an app that keeps time which is over")
    app.studio.cancel()
    await first.value
    await second.value
    XCTAssertEqual(ended, [1, 2])
    let third = time.keepAlive(app.studio)
    time.giveBackAll()
    XCTAssertEqual(ended, [1, 2, 3], "the app is seen again")
    await third.value
    XCTAssertEqual(ended, [1, 2, 3])
  }

  private nonisolated static var thread: String { Thread.isMainThread ? "main" : "other" }

  private func draw(_ app: TestApp, _ change: (inout Settings) -> Void) async throws -> Finished {
    app.studio.settings.prompt = "red apple"
    app.studio.settings.steps = 3
    change(&app.studio.settings)
    app.studio.draw()
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    return try XCTUnwrap(app.studio.finished)
  }
}

/// What was called, from any thread.
private final class Calls: @unchecked Sendable {  // `lock` guards it
  private let lock = NSLock()
  private var said: [String] = []

  var all: [String] { lock.withLock { said } }

  func add(_ call: String) { lock.withLock { said.append(call) } }
}
