import Foundation
import XCTest

@testable import PocketDiffusion

/// What is wrong with a bundle is told by name, before anything is drawn.
final class BundleTests: XCTestCase {
  private func copied() throws -> URL {
    try Forgery.copy(Given.kit().appendingPathComponent("pndm"), into: Given.scratch(self))
  }

  private func faults(_ work: @autoclosure () throws -> Void) -> [Fault] {
    do {
      try work()
      return []
    } catch EngineError.notWhole(let faults) {
      return faults
    } catch {
      XCTFail("\(error)")
      return []
    }
  }

  /// Every file of the runtime part: a byte of it changed, cut off, a link, missing.
  func testEveryFileOfTheRuntimePartIsGuarded() throws {
    let folder = try copied()
    let memory = DigestMemory()
    func openAndCheck() throws { try ModelBundle(folder: folder, digests: memory).checkAll() }
    try openAndCheck()
    let table = try ModelBundle(folder: folder).manifest.files
    let runtime = table.paths.filter { table[$0]?.role == .runtime }
    XCTAssertGreaterThan(runtime.count, 20)
    for path in runtime + [FileTable.manifest, FileTable.digest] {
      let file = folder.appendingPathComponent(path)
      let whole = try Data(contentsOf: file)
      if !whole.isEmpty {
        var changed = whole
        changed[changed.count / 2] ^= 1
        try changed.write(to: file)
        XCTAssertEqual(faults(try openAndCheck()).first?.kind, .content, path)
        try whole.dropLast().write(to: file)
        let kind: Fault.Kind = runtime.contains(path) ? .size : .content
        XCTAssertEqual(faults(try openAndCheck()), [Fault(path: path, kind: kind)])
      }
      try FileManager.default.removeItem(at: file)
      XCTAssertEqual(faults(try openAndCheck()), [Fault(path: path, kind: .missing)])
      let elsewhere = folder.deletingLastPathComponent().appendingPathComponent("elsewhere")
      try whole.write(to: elsewhere)
      try FileManager.default.createSymbolicLink(at: file, withDestinationURL: elsewhere)
      XCTAssertEqual(faults(try openAndCheck()), [Fault(path: path, kind: .link)])
      try FileManager.default.removeItem(at: file)
      try whole.write(to: file)
    }
    try openAndCheck()
  }

  func testAnExtraFileIsNamedAndWhatOthersLeaveBehindIsNot() throws {
    let folder = try copied()
    try FileManager.default.createDirectory(
      at: folder.appendingPathComponent("__MACOSX/onnx"), withIntermediateDirectories: true)
    for path in [".DS_Store", "onnx/._unet", "__MACOSX/onnx/x"] {
      try Data("x".utf8).write(to: folder.appendingPathComponent(path))
    }
    _ = try ModelBundle(folder: folder)
    try Data("x".utf8).write(to: folder.appendingPathComponent("onnx/unet/model.onnx.bak"))
    XCTAssertEqual(
      faults(try { _ = try ModelBundle(folder: folder) }()), [Fault(path: "onnx/unet/model.onnx.bak", kind: .extra)])
  }

  func testPatternsStandForNames() {
    XCTAssertTrue(FileTable.matches(".trashed-*", ".trashed-1"))
    XCTAssertTrue(FileTable.matches(".sync_*.db*", ".sync_a.db-wal"))
    XCTAssertTrue(FileTable.matches("icon?", "icon\r"))
    XCTAssertTrue(FileTable.matches("*a*b", "xaxabb"))
    XCTAssertFalse(FileTable.matches("*a*b", "xaxbc"))
    XCTAssertFalse(FileTable.matches(".nfs*", "nfs1"))
    XCTAssertFalse(FileTable.matches("a?", "a"))
  }

  func testRolesAreThereWholeOrNotAtAll() throws {
    let folder = try copied()
    let table = try ModelBundle(folder: folder).manifest.files
    let proof = table.paths.filter { table[$0]?.role == .proof }
    XCTAssertGreaterThan(proof.count, 1)
    try FileManager.default.removeItem(at: folder.appendingPathComponent(proof[0]))
    XCTAssertEqual(
      faults(try { _ = try ModelBundle(folder: folder) }()), [Fault(path: proof[0], kind: .missing)])
    for path in proof[1...] { try FileManager.default.removeItem(at: folder.appendingPathComponent(path)) }
    let bundle = try ModelBundle(folder: folder)
    assertThrows(try bundle.read(proof[0])) { $0 == .proofNotInstalled(path: proof[0]) }
    try bundle.checkAll()
  }

  func testAFolderThatIsNoBundleIsToldSo() throws {
    let empty = try Given.scratch(self)
    for folder in [empty, empty.appendingPathComponent("nowhere")] {
      assertThrows(try ModelBundle(folder: folder)) { error in
        if case .notABundle = error { true } else { false }
      }
    }
  }

  func testOtherVersionsAreRefusedByTheirNumber() throws {
    let folder = try copied()
    for version in [1, 3] {
      try Forgery.change(folder, FileTable.manifest) { $0["version"] = version }
      assertThrows(try ModelBundle(folder: folder)) { $0 == .wrongVersion(found: version, known: 2) }
    }
    try Forgery.change(folder, FileTable.manifest) {
      $0["version"] = 2
      $0["minor"] = 99
      $0["a_field_of_later"] = ["x": 1]
    }
    _ = try ModelBundle(folder: folder)
  }

  func testABundleThatFailedItsProofIsForDevelopers() throws {
    let folder = try copied()
    try Forgery.change(folder, FileTable.manifest) {
      setting(&$0, ["proof", "passed"], to: false)
      setting(&$0, ["proof", "worst", "subject"], to: "unet.out_sample")
    }
    assertThrows(try ModelBundle(folder: folder)) { $0 == .proofFailed(subject: "unet.out_sample") }
    _ = try ModelBundle(folder: folder, unproven: true)
  }

  func testWhatCannotBeIsAContradictionWithItsPlace() throws {
    let folder = try copied()
    let good = try Data(contentsOf: folder.appendingPathComponent(FileTable.manifest))
    let changes: [(String, (inout [String: Any]) -> Void)] = [
      ("manifest.json.proof", { $0["proof"] = ["passed": "yes"] }),
      ("manifest.json", { $0["model"] = nil }),
      ("manifest.json", { setting(&$0, ["files", "../x"], to: ["sha256": "", "size": 1, "role": "runtime"]) }),
      ("manifest.json", { setting(&$0, ["files", "readme.md"], to: ["sha256": "", "size": 1, "role": "runtime"]) }),
    ]
    for (place, change) in changes {
      try good.write(to: folder.appendingPathComponent(FileTable.manifest))
      try Forgery.change(folder, FileTable.manifest, change)
      assertThrows(try ModelBundle(folder: folder)) { error in
        if case .contradiction(let found, _) = error { found.hasPrefix(place) } else { false }
      }
    }
  }

  /// A role of later is information: its files are all there, or none.
  func testAnUnknownRoleIsPassedOver() throws {
    let folder = try copied()
    let names = ["report/report.html", "report/report.json"]
    try Forgery.change(folder, FileTable.manifest) {
      for name in names { setting(&$0, ["files", name, "role"], to: "decoration") }
    }
    try ModelBundle(folder: folder).checkAll()
    try FileManager.default.removeItem(at: folder.appendingPathComponent(names[0]))
    assertThrows(try ModelBundle(folder: folder).checkAll()) {
      $0 == .notWhole([Fault(path: names[0], kind: .missing)])
    }
    try FileManager.default.removeItem(at: folder.appendingPathComponent(names[1]))
    try ModelBundle(folder: folder).checkAll()
  }

  func testWhatThePipelineFileAsksForAndIsNotKnownIsRefused() throws {
    let folder = try copied()
    let path = "pipeline/onnx.json"
    let good = try Data(contentsOf: folder.appendingPathComponent(path))
    let changes: [([String], Any, String)] = [
      (["program", "guidance"], "perpendicular", "the guidance kind perpendicular"),
      (["program", "absent_negative"], "average", "the absent_negative average"),
      (["program", "draws"], ["image"], "the draw image"),
    ]
    for (keys, value, what) in changes {
      try good.write(to: folder.appendingPathComponent(path))
      try Forgery.change(folder, path) { setting(&$0, keys, to: value) }
      assertThrows(try ModelBundle(folder: folder).pipeline(format: "onnx")) { $0 == .refusal(what: what) }
    }
  }

  /// A bundle of another phone can be drawn with; a person hears of it.
  func testAnotherPhonesBundleIsANotice() throws {
    let folder = try copied()
    try Forgery.change(folder, FileTable.manifest) {
      setting(&$0, ["target", "title"], to: "Some Phone")
      setting(&$0, ["target", "memory_mb"], to: 8192)
    }
    let bundle = try ModelBundle(folder: folder)
    XCTAssertEqual(bundle.notices(memory: 8000 << 20), [.madeFor(phone: "Some Phone")])
    XCTAssertEqual(
      bundle.notices(memory: 4096 << 20),
      [.madeFor(phone: "Some Phone"), .lessMemory(phone: "Some Phone", phoneMB: 8192, hereMB: 4096)])
    try Forgery.change(folder, FileTable.manifest) { setting(&$0, ["proof", "passed"], to: false) }
    let notices = try ModelBundle(folder: folder, unproven: true).notices(memory: 8000 << 20)
    XCTAssertEqual(notices.count, 2)
    for notice in notices { XCTAssertTrue(notice.description.hasSuffix(".")) }
    _ = try Generator(bundle: bundle, engine: Given.engine()).drawNow(Request(prompt: "x", seed: "1", steps: 1))
  }

  func testDigestsAreRememberedBySizeAndDate() throws {
    let folder = try Given.scratch(self)
    let (file, store) = (folder.appendingPathComponent("file"), folder.appendingPathComponent("store.json"))
    try Data("one".utf8).write(to: file)
    var reads = 0
    func digest() throws -> String { try DigestMemory(store: store).sha256(of: file) { reads += $0 } }
    let one = try digest()
    XCTAssertEqual(one, SHA256.hex(of: Array("one".utf8)))
    XCTAssertEqual(try digest(), one)
    XCTAssertEqual(reads, 3)
    try Data("two".utf8).write(to: file)
    try FileManager.default.setAttributes([.modificationDate: Date(timeIntervalSince1970: 9)], ofItemAtPath: file.path)
    XCTAssertEqual(try digest(), SHA256.hex(of: Array("two".utf8)))
    XCTAssertEqual(reads, 6)
    let moved = folder.appendingPathComponent("elsewhere/file")
    try FileManager.default.createDirectory(at: moved.deletingLastPathComponent(), withIntermediateDirectories: true)
    let memory = DigestMemory(store: store)
    try FileManager.default.moveItem(at: file, to: moved)
    memory.moved(from: folder, to: moved.deletingLastPathComponent())
    _ = try memory.sha256(of: moved) { reads += $0 }
    XCTAssertEqual(reads, 6)
    try Data("no json".utf8).write(to: store)
    XCTAssertEqual(try DigestMemory(store: store).sha256(of: moved) { reads += $0 }, SHA256.hex(of: Array("two".utf8)))
    XCTAssertEqual(reads, 9)
  }

  /// The vectors of FIPS 180-4, and pieces that end anywhere.
  func testSha256IsThePublishedOne() {
    let long = [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000)
    let vectors: [([UInt8], String)] = [
      ([], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
      (Array("abc".utf8), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
      (long, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ]
    for (bytes, wanted) in vectors {
      for piece in [1, 3, 63, 64, 65, 1 << 20] where piece > 60 || bytes.count < 100 {
        var hash = PlainSHA256()
        for at in stride(from: 0, to: bytes.count, by: piece) {
          bytes[at..<min(at + piece, bytes.count)].withUnsafeBytes { hash.update($0) }
        }
        XCTAssertEqual(SHA256.hex(digest: hash.finish()), wanted)
      }
    }
  }
}
