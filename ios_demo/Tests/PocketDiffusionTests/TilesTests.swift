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

  /// With a decoder that looks at one latent for each pixel, so that tiles are as the whole.
  func testEachTileIsDecodedOnceAndLiesInItsPlace() throws {
    let whole = try Given.emoji()
    let folder = try Forgery.copy(whole.folder, into: Given.scratch(self))
    try Forgery.change(folder, pipelineFile) { fields in
      setting(&fields, ["vae", "tile_size"], to: 24)
      setting(&fields, ["vae", "tile_overlap"], to: 8)
      Self.shape(&fields, "inputs", [1, 4, 24 / Enlarging.scale, 24 / Enlarging.scale])
      Self.shape(&fields, "outputs", [1, 3, 24, 24])
    }
    let pictures = try [(whole, 1), (ModelBundle(folder: folder, digests: Given.digests), 16)].map { bundle, calls in
      let engine = Enlarging(inner: try Given.engine())
      let generator = try Generator(bundle: bundle, engine: engine, residency: .stage)
      let picture = try generator.drawNow(Request(prompt: "red apple", seed: "1", steps: 2)).picture
      XCTAssertEqual(engine.calls.value, calls)
      XCTAssertEqual(engine.opened.value, 1)
      return picture
    }
    XCTAssertEqual(pictures[0], pictures[1])
  }

  func testTilesThatCannotBeAreRefused() throws {
    let folder = try Forgery.copy(Given.emoji().folder, into: Given.scratch(self))
    func read(_ tile: Int?, _ overlap: Int?) throws -> Pipeline {
      try Forgery.change(folder, pipelineFile) { fields in
        setting(&fields, ["vae", "tile_size"], to: tile.map { $0 as Any } ?? NSNull())
        setting(&fields, ["vae", "tile_overlap"], to: overlap.map { $0 as Any } ?? NSNull())
      }
      return try ModelBundle(folder: folder, digests: Given.digests).pipeline(format: "onnx")
    }
    let wrong: [(Int?, Int?)] = [(32, nil), (nil, 8), (32, 32), (30, 8), (32, 6), (64, 8), (0, 0), (32, -4)]
    for (tile, overlap) in wrong {
      assertThrows(try read(tile, overlap)) { if case .contradiction = $0 { true } else { false } }
    }
    assertThrows(try read(32, 8)) { error in  // the decoder is made for the whole picture
      if case .refusal(let what) = error { what.hasPrefix("vae.tile_size") } else { false }
    }
  }

  private let pipelineFile = "pipeline/onnx.json"

  /// Writes a shape into the decoder's one input or output.
  private static func shape(_ fields: inout [String: Any], _ side: String, _ shape: [Int]) {
    let keys = ["graphs", "vae_decoder", "spec", side]
    var tensor = (keys.reduce(fields as Any) { ($0 as? [String: Any])?[$1] ?? [] } as? [[String: Any]])?.first ?? [:]
    tensor["shape"] = shape
    setting(&fields, keys, to: [tensor])
  }
}

/// An engine that has a decoder of its own: it enlarges three channels of the latents.
private struct Enlarging: GraphEngine {
  static let scale = 4

  let inner: any GraphEngine
  let calls = Counter()
  let opened = Counter()

  var name: String { inner.name }
  var version: String { inner.version }
  var format: String { inner.format }
  var units: [String] { inner.units }

  func arithmetic(of graph: PipelineGraph, on unit: String) -> String { inner.arithmetic(of: graph, on: unit) }

  func open(_ graph: PipelineGraph, of bundle: ModelBundle, on unit: String) throws -> any GraphRunner {
    if graph.name != "vae_decoder" { return try inner.open(graph, of: bundle, on: unit) }
    opened.next()
    return Runner(output: graph.spec.outputs[0].name, calls: calls)
  }

  private final class Runner: GraphRunner {
    private let output: String
    private let calls: Counter

    init(output: String, calls: Counter) {
      self.output = output
      self.calls = calls
    }

    func run(_ inputs: Values, cancellation: Cancellation) throws -> Values {
      calls.next()
      guard let latents = inputs.values.first else { return [:] }
      let (height, width, values) = (latents.shape[2], latents.shape[3], latents.floats)
      let shape = [1, 3, Enlarging.scale * height, Enlarging.scale * width]
      let made = (0..<shape.reduce(1, *)).map { i in
        let (line, x) = (i / shape[3], i % shape[3] / Enlarging.scale)
        let (c, y) = (line / shape[2], line % shape[2] / Enlarging.scale)
        return values[(c * height + y) * width + x]
      }
      return [output: Tensor(made, shape: shape)]
    }
  }
}
