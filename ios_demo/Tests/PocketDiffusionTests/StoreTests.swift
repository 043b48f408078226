import Foundation
import XCTest

@testable import PocketDiffusion

#if canImport(FoundationNetworking)
  import FoundationNetworking
#endif

/// Bundles that come from elsewhere: whole and checked, or not at all.
final class StoreTests: XCTestCase {
  private func pndm() throws -> URL { try Given.kit().appendingPathComponent("pndm") }

  /// A server in this process, which may break off in the midst of the file `breaks`.
  private final class FolderRemote: Remote, @unchecked Sendable {  // `lock` guards what changes
    private let folder: URL
    private let lock = NSLock()
    private var broken: String?
    private var asked: [String] = []
    private let ranges: Bool

    init(_ folder: URL, breaks: String? = nil, ranges: Bool = true) {
      self.folder = folder
      self.ranges = ranges
      broken = breaks
    }

    var requests: [String] { lock.withLock { asked } }

    func read(
      _ path: String, from: Int64, onBegin: @escaping @Sendable (Int64) throws -> Void,
      onPiece: @escaping @Sendable (Data) throws -> Void
    ) async throws {
      let breaks = lock.withLock {
        asked.append(from == 0 ? path : "\(path) from \(from)")
        defer { if broken == path { broken = nil } }
        return broken == path
      }
      let data = try Data(contentsOf: folder.appendingPathComponent(path))
      let begin = ranges ? Int(from) : 0
      try onBegin(Int64(begin))
      for at in stride(from: begin, to: data.count, by: 1000) {
        if breaks && at > data.count / 2 { throw URLError(.networkConnectionLost) }
        try onPiece(data[at..<min(at + 1000, data.count)])
      }
    }
  }

  func testABundleIsCopiedWithoutWhatNoAppNeeds() throws {
    let store = try BundleStore(folder: Given.scratch(self))
    XCTAssertEqual(store.names, [])
    let bundle = try store.add(copying: pndm(), name: "pndm")
    XCTAssertEqual(store.names, ["pndm"])
    XCTAssertEqual(bundle.manifest.bundleID, try ModelBundle(folder: pndm()).manifest.bundleID)
    XCTAssertFalse(FileManager.default.fileExists(atPath: bundle.folder.appendingPathComponent("proof.json").path))
    XCTAssertEqual(try store.open("pndm").manifest.runtimeID, bundle.manifest.runtimeID)
    try store.remove("pndm")
    XCTAssertEqual(store.names, [])
    assertThrows(try store.open("pndm")) { if case .notABundle = $0 { true } else { false } }
  }

  func testWhatIsWrongIsNamedAndNothingIsInstalled() throws {
    let store = try BundleStore(folder: Given.scratch(self))
    let folder = try Forgery.copy(pndm(), into: Given.scratch(self))
    let path = "onnx/unet/model.onnx"
    var bytes = try Data(contentsOf: folder.appendingPathComponent(path))
    bytes[7] ^= 1
    try bytes.write(to: folder.appendingPathComponent(path))
    assertThrows(try store.add(copying: folder, name: "pndm")) { $0 == .notWhole([Fault(path: path, kind: .content)]) }
    assertThrows(try store.add(copying: pndm(), name: "pndm") { _, _ in throw EngineError.cancelled }) {
      $0 == .cancelled
    }
    let full = try BundleStore(folder: Given.scratch(self), leftBytes: { 1 << 20 })
    assertThrows(try full.add(copying: pndm(), name: "pndm")) { if case .storageFull = $0 { true } else { false } }
    for one in [store, full] {
      XCTAssertEqual(one.names, [])
      let left = try FileManager.default.contentsOfDirectory(atPath: one.folder.path).filter { $0 != ".digests.json" }
      XCTAssertEqual(left, [])
    }
  }

  func testADownloadThatBrokeOffGoesOn() async throws {
    let store = try BundleStore(folder: Given.scratch(self))
    let path = "onnx/unet/model.onnx_data"
    let remote = FolderRemote(try pndm(), breaks: path)
    do {
      _ = try await store.add(downloading: remote, name: "pndm")
      XCTFail("it did not break off")
    } catch EngineError.downloadBroken(let done, let said) {
      XCTAssertGreaterThan(done, 10_000)
      XCTAssertTrue(said.contains(path))
    }
    XCTAssertEqual(store.names, [])
    let before = remote.requests
    let total = Counter()
    let bundle = try await store.add(downloading: remote, name: "pndm") { done, all in
      total.next()
      XCTAssertLessThanOrEqual(done, all)
    }
    try bundle.checkAll()
    XCTAssertGreaterThan(total.value, 20)
    let later = remote.requests.dropFirst(before.count)
    XCTAssertTrue(later.contains { $0.hasPrefix("\(path) from ") })
    XCTAssertFalse(later.contains { before.dropLast().contains($0) && !$0.hasPrefix("manifest") })  // nothing twice
    _ = try Generator(bundle: bundle, engine: Given.engine()).drawNow(Request(prompt: "x", seed: "1", steps: 1))
  }

  func testAServerWithoutRangesIsAskedFromTheBeginning() async throws {
    let store = try BundleStore(folder: Given.scratch(self))
    let remote = FolderRemote(try pndm(), breaks: "onnx/unet/model.onnx_data", ranges: false)
    _ = try? await store.add(downloading: remote, name: "pndm")
    let bundle = try await store.add(downloading: remote, name: "pndm")
    try bundle.checkAll()
  }

  func testAWrongFileIsNamedAndLoadedAnew() async throws {
    let store = try BundleStore(folder: Given.scratch(self))
    let folder = try Forgery.copy(pndm(), into: Given.scratch(self))
    let file = folder.appendingPathComponent("steps/tables.bin")
    let whole = try Data(contentsOf: file)
    var bytes = whole
    bytes[3] ^= 1
    try bytes.write(to: file)
    do {
      _ = try await store.add(downloading: FolderRemote(folder), name: "pndm")
      XCTFail("it was taken")
    } catch {
      XCTAssertEqual(error as? EngineError, .notWhole([Fault(path: "steps/tables.bin", kind: .content)]))
    }
    try whole.dropLast(9).write(to: file)
    do {
      _ = try await store.add(downloading: FolderRemote(folder), name: "pndm")
      XCTFail("it was taken")
    } catch EngineError.downloadBroken(_, let said) {
      XCTAssertTrue(said.contains("steps/tables.bin"))
    }
    try whole.write(to: file)
    try await store.add(downloading: FolderRemote(folder), name: "pndm").checkAll()
    let full = try BundleStore(folder: Given.scratch(self), leftBytes: { 1 << 20 })
    do {
      _ = try await full.add(downloading: FolderRemote(folder), name: "pndm")
      XCTFail("there was no room")
    } catch EngineError.storageFull(_, let left) {
      XCTAssertEqual(left, 1 << 20)
    }
  }

  /// By HTTP, with a server that is a part of the session.
  func testHTTPAsksForWhatIsNotThere() async throws {
    let folder = try pndm()
    FolderProtocol.folder = folder
    let configuration = URLSessionConfiguration.ephemeral
    configuration.protocolClasses = [FolderProtocol.self]
    let remote = HTTPRemote(try XCTUnwrap(URL(string: "http://bundles.invalid/pndm")), configuration: configuration)
    let bundle = try await BundleStore(folder: Given.scratch(self)).add(downloading: remote, name: "pndm")
    try bundle.checkAll()
    let got = Collected()
    try await remote.read("README.md", from: 5, onBegin: { got.begin($0) }, onPiece: { got.add($0) })
    XCTAssertEqual(got.data, try Data(contentsOf: folder.appendingPathComponent("README.md")).dropFirst(5))
    XCTAssertEqual(got.from, 5)
    do {
      try await remote.read("nowhere", from: 0, onBegin: { _ in }, onPiece: { _ in })
      XCTFail("there is no such file")
    } catch {
      XCTAssertEqual(error.localizedDescription, "the server answered 404")
    }
  }

  func testNoticesAreNoErrors() throws {
    let bundle = try Given.emoji()
    let target = bundle.manifest.target
    XCTAssertEqual(bundle.notices(memory: 1 << 40), [.madeFor(phone: target.title)])
    let wants = try XCTUnwrap(target.memoryMb)
    XCTAssertEqual(
      bundle.notices(memory: 2048 << 20).last, .lessMemory(phone: target.title, phoneMB: wants, hereMB: 2048))
  }
}

private final class Collected: @unchecked Sendable {  // used by one session at a time
  private(set) var data = Data()
  private(set) var from: Int64 = -1

  func begin(_ from: Int64) { self.from = from }

  func add(_ piece: Data) { data += piece }
}

/// Answers requests from a folder: 404 for what is not there, 206 to a range.
private final class FolderProtocol: URLProtocol, @unchecked Sendable {
  nonisolated(unsafe) static var folder = URL(fileURLWithPath: "/")

  override class func canInit(with request: URLRequest) -> Bool { true }

  override class func canonicalRequest(for request: URLRequest) -> URLRequest { request }

  override func startLoading() {
    guard let url = request.url else { return }
    let path = url.path.split(separator: "/").dropFirst().joined(separator: "/")
    let data = try? Data(contentsOf: Self.folder.appendingPathComponent(path))
    let range = request.value(forHTTPHeaderField: "Range")?.dropFirst("bytes=".count).dropLast()
    let from = range.flatMap { Int($0) } ?? 0
    let code = data == nil ? 404 : range == nil ? 200 : 206
    if let response = HTTPURLResponse(url: url, statusCode: code, httpVersion: "HTTP/1.1", headerFields: nil) {
      client?.urlProtocol(self, didReceive: response, cacheStoragePolicy: .notAllowed)
    }
    if let data { client?.urlProtocol(self, didLoad: data.dropFirst(from)) }
    client?.urlProtocolDidFinishLoading(self)
  }

  override func stopLoading() {}
}
