import Foundation
import XCTest

@testable import PocketDiffusion

final class PictureTests: XCTestCase {
  func testNoLevelWrapsAround() {
    let picture = Picture(decoded: [.nan, -2, 0, 2, 1, -.infinity], width: 2, height: 1)
    XCTAssertEqual(picture.rgb, [0, 128, 255, 0, 255, 0])
  }

  func testAPreviewHasAPixelForEachLatent() {
    let preview = Pipeline.Preview(matrix: [[1, 0, 2], [0, 1, 0]], bias: [0, 0.5, 0])
    let picture = Picture(preview: [1, 0.2, 0, -9], width: 2, height: 1, preview: preview)
    XCTAssertEqual(picture.rgb, [255, 128, 255, 51, 0, 102])
  }

  func testPNGFilesComeBackWithTheirFacts() throws {
    var random = try TorchRandom(seed: "1")
    let levels = random.normal(300 * 90 * 3).map { UInt8(truncatingIfNeeded: Int($0 * 40)) }
    let picture = Picture(width: 300, height: 90, rgb: levels)  // more than one stored block
    let facts = ["prompt": "a 🍎 and \"ÄPFEL\"", "seed": "7"]
    let bytes = PNG.write(picture, facts: facts)
    XCTAssertEqual(try PNG.read(bytes, place: "picture"), picture)
    XCTAssertEqual(try PNG.readFacts(bytes, place: "picture"), facts)
    var flipped = bytes
    flipped[bytes.count / 2] ^= 1
    for broken in [Array(bytes.prefix(bytes.count / 2)), [1, 2, 3], [], flipped] {
      assertThrows(try PNG.read(broken, place: "picture")) { error in
        if case .contradiction("picture", _) = error { true } else { false }
      }
    }
  }

  /// Pillow packs its files; what our own packing-free files do not show is read here.
  func testPackedDataIsUnpackedToTheByte() throws {
    let folder = try Given.requests()
    let photo = try readPicture(folder.appendingPathComponent("photo.png"))
    XCTAssertEqual(photo.width, 48)
    XCTAssertEqual(photo.height, 80)
    let level = (127.5 + 127.5 * sin(10.0 / 3) * cos(7.0 / 5)).rounded(.toNearestOrEven)
    XCTAssertEqual(photo.rgb[3 * (7 * 48 + 10)], UInt8(level))
  }

  func testStrengthSaysHowManyRowsAreLeftOut() throws {
    XCTAssertEqual(try ImageToImage.start(steps: 20, strength: 0.8), 4)
    XCTAssertEqual(try ImageToImage.start(steps: 4, strength: 1), 0)
    for strength in [0.2, 0, -1, 1.01, .infinity, .nan] {
      assertThrows(try ImageToImage.start(steps: 4, strength: strength)) { error in
        if case .badRequest = error { true } else { false }
      }
    }
  }

  func testPicturesAreResizedAsPillowDoes() throws {
    let folder = try Given.requests()
    let photo = try readPicture(folder.appendingPathComponent("photo.png"))
    let files = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasPrefix("photo-") }
    XCTAssertGreaterThanOrEqual(files.count, 6)
    for file in files {
      let expected = try readPicture(folder.appendingPathComponent(file))
      XCTAssertEqual(ImageToImage.resize(photo, width: expected.width, height: expected.height), expected, file)
    }
  }

  func testWhatIsTransparentIsWhite() {
    let rgba: [UInt8] = [10, 20, 30, 0, 10, 20, 30, 255, 0, 0, 0, 127]
    XCTAssertEqual(ImageToImage.overWhite(rgba: rgba), [255, 255, 255, 10, 20, 30, 128, 128, 128])
  }
}
