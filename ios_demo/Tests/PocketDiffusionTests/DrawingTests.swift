import Foundation
import XCTest

@testable import PocketDiffusion

/// Pictures that were drawn elsewhere are drawn again.
final class DrawingTests: XCTestCase {
  private static let floor = 60.0

  /// Bundles of six kinds, among them SDXL, and the pictures of diffusers' own pipelines.
  func testTheKitsPictures() throws { try drawAll(in: Given.kit()) }

  /// What Python draws with the built-in model: every sampler, 1 to 50 steps, image to image.
  func testPythonsPictures() throws { try drawAll(in: Given.requests()) }

  private func drawAll(in folder: URL) throws {
    let requests = try DrawnRequests(in: folder)
    let photo = try readPicture(folder.appendingPathComponent(requests.photo))
    let engine = try Given.engine()
    var generators: [String: Generator] = [:]
    var least = Double.infinity
    for (number, told) in requests.draw.enumerated() {
      let generator =
        try generators[told.bundle]
        ?? Generator(
          bundle: ModelBundle(folder: URL(fileURLWithPath: told.bundle, relativeTo: folder), digests: Given.digests),
          engine: engine)
      generators[told.bundle] = generator
      let original = try readPicture(folder.appendingPathComponent(told.picture))
      let ways = told.steps ?? 0 < 20 ? [false, true] : [number % 2 == 0]  // long runs take their time
      for oneBatch in ways {
        let drawn = try generator.drawNow(told.request(photo: photo, oneBatch: oneBatch))
        let db = Compare.psnr(original, drawn.picture)
        least = min(least, db)
        XCTAssertGreaterThanOrEqual(db, Self.floor, "\(told.picture), both halves in one call: \(oneBatch)")
      }
    }
    XCTAssertFalse(requests.draw.isEmpty)
    print("PICTURES \(folder.lastPathComponent): \(requests.draw.count), least \(least) dB")
  }
}
