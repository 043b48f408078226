import Foundation
import PocketDiffusion
import XCTest

@testable import AppModels

/// Bundles come, are found, are wrong, and go.
@MainActor final class BundlesTests: XCTestCase {
  func testEachMissingOrWrongFileIsNamed() async throws {
    let app = try TestApp(self)
    let folder = try app.copyBundle()
    let files = FileManager.default
    try files.removeItem(at: folder.appendingPathComponent("steps/tables.bin"))
    try Data("x".utf8).write(to: folder.appendingPathComponent("licences/extra.txt"))
    try Data("x".utf8).write(to: folder.appendingPathComponent("tokenizer/characters.json"))
    await app.studio.start()
    XCTAssertNil(app.studio.opened)
    let problem = try XCTUnwrap(app.studio.bundles.first?.problem)
    XCTAssertEqual(problem.title, Phrase(.errorNotWhole))
    XCTAssertEqual(
      problem.files,
      [
        Phrase(.faultExtra, .text("licences/extra.txt")), Phrase(.faultMissing, .text("steps/tables.bin")),
        Phrase(.faultSize, .text("tokenizer/characters.json")),
      ])
    app.studio.open(try XCTUnwrap(app.studio.bundles.first).place)
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem, problem)
    XCTAssertNil(app.studio.opened)
  }

  func testAFileOfAnotherContentIsNamed() async throws {
    let app = try TestApp(self)
    let file = try app.copyBundle().appendingPathComponent("steps/tables.bin")
    var bytes = try Data(contentsOf: file)
    bytes[100] ^= 1
    try bytes.write(to: file)
    await app.studio.look()
    XCTAssertNil(app.studio.bundles[0].problem, "sizes are right, and digests take their time")
    app.studio.open(app.studio.bundles[0].place)
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.files, [Phrase(.faultContent, .text("steps/tables.bin"))])
    XCTAssertNil(app.studio.opened)
  }

  func testAZipIsUnpackedOpenedAndDeleted() async throws {
    for name in ["flat.zip", "folder.zip", "long.zip"] {
      let app = try TestApp(self)
      app.studio.pick(try app.zip(name))
      XCTAssertEqual(app.studio.work?.kind, .unpack)
      await app.studio.idle()
      XCTAssertNil(app.studio.problem)
      let opened = try XCTUnwrap(app.studio.opened)
      XCTAssertEqual(opened.place.origin, .own)
      XCTAssertEqual(opened.place.name, String(name.dropLast(4)))
      XCTAssertEqual(
        try FileManager.default.contentsOfDirectory(atPath: app.folders.own.path), [opened.place.name],
        "nothing else is left")
      app.studio.pick(try app.zip(name))
      await app.studio.idle()
      XCTAssertEqual(app.studio.bundles.count, 2, "an older one of the same name stays")
      await app.studio.delete(opened.place)
      XCTAssertEqual(app.studio.bundles.count, 1)
      XCTAssertFalse(FileManager.default.fileExists(atPath: opened.place.folder.path))
    }
  }

  func testADamagedZipLeavesNothing() async throws {
    let app = try TestApp(self)
    let whole = try Data(contentsOf: app.zip("flat.zip"))
    let zip = try XCTUnwrap(app.folders.shared).appendingPathComponent("damaged.zip")
    var damaged: [Data] = [Data(), Data("no zip at all, but longer than a directory's end".utf8), whole.prefix(10_000)]
    for at in [whole.count / 2, 5000] {
      damaged.append(whole)
      for i in at..<at + 8 { damaged[damaged.count - 1][i] ^= 255 }
    }
    for bytes in damaged {
      try bytes.write(to: zip)
      app.studio.pick(zip)
      await app.studio.idle()
      XCTAssertEqual(app.studio.problem?.title, Phrase(.errorUnreadable), "\(bytes.count) bytes")
      XCTAssertNil(app.studio.opened)
      XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: app.folders.own.path), [])
    }
  }

  func testAZipOfSomethingElseIsNoBundle() async throws {
    let app = try TestApp(self)
    app.studio.pick(try app.zip("other.zip"))
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorNotABundle))
  }

  func testAFullPhoneIsSaidBeforeUnpacking() async throws {
    let app = try TestApp(self)
    app.phone.leftStorage = { _ in 1 << 20 }
    app.restart()
    app.studio.pick(try app.zip("flat.zip"))
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorStorage))
    XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: app.folders.own.path), [])
  }

  func testAccessToAPickedFolderBeginsAndEnds() async throws {
    let app = try TestApp(self)
    let access = Access()
    app.phone.beginAccess = { _ in access.count(1) }
    app.phone.endAccess = { _ in _ = access.count(-1) }
    app.restart()
    let opened = try await app.open()
    XCTAssertEqual(access.open, 1, "as long as the bundle is drawn with")
    await app.studio.look()
    XCTAssertEqual(access.open, 1)
    await app.studio.delete(opened.place)
    XCTAssertEqual(access.open, 0)
    XCTAssertTrue(app.studio.bundles.isEmpty)
    XCTAssertTrue(FileManager.default.fileExists(atPath: opened.place.folder.path), "it is forgotten, not removed")
    app.studio.pick(try XCTUnwrap(app.folders.shared))  // no bundle
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorNotABundle))
    XCTAssertEqual(access.open, 0)
  }

  func testAFolderThatIsNoBundleLeavesThePickedOneToBeFound() async throws {
    let app = try TestApp(self)
    let opened = try await app.open()
    app.studio.pick(try XCTUnwrap(app.folders.shared))  // no bundle
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorNotABundle))
    app.restart()
    await app.studio.start()
    XCTAssertEqual(app.studio.opened?.place.id, opened.place.id)
  }

  func testAPickedFolderIsTheSameByWhateverAddress() async throws {
    let app = try TestApp(self)
    let folder = try app.bundle()
    let other = folder.deletingLastPathComponent().appendingPathComponent("./\(folder.lastPathComponent)")
    let marks = Marks()
    app.phone.resolve = { _ in (other, marks.made < 2) }
    app.phone.bookmark = { folder in
      marks.made += 1
      return Data(folder.path.utf8)
    }
    app.restart()
    try await app.open()
    XCTAssertEqual(marks.made, 2, "an old bookmark is made anew, once")
    await app.studio.look()
    XCTAssertEqual(marks.made, 2)
    let place = try XCTUnwrap(app.studio.bundles.first).place
    XCTAssertNotEqual(place.folder, app.studio.opened?.place.folder)
    await app.studio.delete(place)
    XCTAssertNil(app.studio.opened, "it is the one that was open")
  }

  func testABundleInTheAppStaysThere() async throws {
    let app = try TestApp(self)
    let folder = try XCTUnwrap(app.folders.shipped).appendingPathComponent("emoji")
    try FileManager.default.copyItem(at: app.bundle(), to: folder)
    await app.studio.start()
    let opened = try XCTUnwrap(app.studio.opened)
    XCTAssertEqual(opened.place.origin, .shipped)
    XCTAssertFalse(opened.place.isRemovable)
    await app.studio.delete(opened.place)
    XCTAssertTrue(FileManager.default.fileExists(atPath: folder.path))
  }

  func testADownloadThatBrokeOffGoesOnAfterARestart() async throws {
    let app = try TestApp(self)
    app.studio.settings.address = "https://example.org/models/pndm.zip"
    app.studio.download()
    try await app.downloadBegun(1)
    app.downloads.say(.bytes(done: 3 << 20, total: 9 << 20))
    app.downloads.say(.broken(said: "the network was lost", resume: Data("so far".utf8)))
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.title, Phrase(.errorDownload))
    XCTAssertEqual(app.studio.problem?.detail, "the network was lost")
    XCTAssertEqual(app.studio.downloadKey, .downloadResume)
    app.restart()
    XCTAssertEqual(app.studio.brokenDownloadText?.key, .downloadBroken)
    app.studio.download()
    try await app.downloadBegun(2)
    XCTAssertEqual(app.downloads.asked.last?.resume, Data("so far".utf8))
    let zip = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).zip")
    try FileManager.default.copyItem(at: app.zip("flat.zip"), to: zip)
    app.downloads.say(.finished(zip))
    await app.studio.idle()
    XCTAssertNil(app.studio.problem)
    XCTAssertNil(app.studio.brokenDownload)
    XCTAssertEqual(app.studio.opened?.place.name, "pndm")
    XCTAssertFalse(FileManager.default.fileExists(atPath: zip.path))
  }

  func testADownloadIsStoppedAndKept() async throws {
    let app = try TestApp(self)
    app.studio.settings.address = "https://example.org/models/pndm.zip"
    app.studio.download()
    try await app.downloadBegun(1)
    app.studio.cancel()
    await app.studio.idle()
    XCTAssertEqual(app.downloads.stops, 1)
    XCTAssertNil(app.studio.problem)
    XCTAssertEqual(app.studio.brokenDownload?.canResume, true)
  }

  func testADownloadThatWentOnWithoutTheAppIsFollowed() async throws {
    let app = try TestApp(self)
    let (events, says) = AsyncStream.makeStream(of: DownloadEvent.self)
    app.downloads.left = (try XCTUnwrap(URL(string: "https://example.org/pndm.zip")), events)
    says.yield(.broken(said: "HTTP 404", resume: nil))
    says.finish()
    await app.studio.followRunningDownload()
    await app.studio.idle()
    XCTAssertEqual(app.studio.problem?.detail, "HTTP 404")
    XCTAssertEqual(app.studio.brokenDownload?.canResume, false)
  }

  func testAnAddressThatIsNoneIsSaid() async throws {
    let app = try TestApp(self)
    for address in ["", "pndm.zip", "http://example.org/a.zip", "https://"] {
      app.studio.settings.address = address
      app.studio.download()
      XCTAssertEqual(app.studio.problem?.title, Phrase(.errorAddress), address)
      XCTAssertNil(app.studio.work)
    }
  }
}

/// Counts bookmarks.
private final class Marks: @unchecked Sendable {  // used on the main actor alone
  var made = 0
}

/// Counts how often access was begun and not ended.
private final class Access: @unchecked Sendable {
  private let lock = NSLock()
  private(set) var open = 0

  func count(_ change: Int) -> Bool {
    lock.withLock { open += change }
    return true
  }
}
