import Foundation
import XCTest

@testable import PocketDiffusion

/// Decoding in tiles: where they lie, and how they are blended, as torch computed it.
final class TilesTests: XCTestCase {
  private struct Golden: Decodable {
    struct Case: Decodable {
      let latents: [Int]
      let scale: Int
      let tileSize: Int
      let tileOverlap: Int
      let rows: [Int]
      let columns: [Int]
      let tiles: [[Float]]
      let picture: [Float]
    }

    let cases: [Case]
  }

  func testTheGoldenTilesAreBlendedToTheBit() throws {
    let golden = try Given.golden(Golden.self, "tiles.json").cases
    XCTAssertGreaterThanOrEqual(golden.count, 4)
    for one in golden {
      let (height, width) = (one.latents[0], one.latents[1])
      let (tile, overlap) = (one.tileSize / one.scale, one.tileOverlap / one.scale)
      let tiles = Tiles(
        rows: Tiles.Axis(size: height, tile: tile, overlap: overlap),
        columns: Tiles.Axis(size: width, tile: tile, overlap: overlap), scale: one.scale)
      XCTAssertEqual(tiles.rows.starts, one.rows)
      XCTAssertEqual(tiles.columns.starts, one.columns)
      let latents = (0..<2 * height * width).map(Float.init)  // each tells its place
      var given: [[Float]] = []
      let picture = tiles.decode(latents, channels: 2) {
        given.append($0)
        return one.tiles[given.count - 1]
      }
      XCTAssertEqual(picture, one.picture)
      let cut = one.rows.flatMap { row in
        one.columns.map { column in
          (0..<2).flatMap { c in
            (row..<row + tiles.rows.length).flatMap { y in
              (column..<column + tiles.columns.length).map { x in Float((c * height + y) * width + x) }
            }
          }
        }
      }
      XCTAssertEqual(given, cut)
    }
  }
}
