import Foundation
import XCTest

@testable import PocketDiffusion

/// requests.json of the reader's kit, and of draw_requests.py: what is drawn with which bundle, and the picture of it.
struct DrawnRequests: Decodable {
  struct One: Decodable {
    let bundle: String
    let picture: String
    let prompt: String
    let negativePrompt: String?
    let seed: String
    let steps: Int?
    let guidance: Double?
    let sampler: String?
    let strength: Double?
  }

  let photo: String
  let draw: [One]

  init(in folder: URL) throws {
    let path = "requests.json"
    let bytes = Array(try Data(contentsOf: folder.appendingPathComponent(path)))
    self = try BundleJSON.decode(DrawnRequests.self, from: bytes, path: path)
  }
}

extension DrawnRequests.One {
  func request(photo: Picture, oneBatch: Bool) -> Request {
    Request(
      prompt: prompt, negativePrompt: negativePrompt, seed: seed, steps: steps, guidance: guidance, sampler: sampler,
      picture: strength == nil ? nil : photo, strength: strength, oneBatch: oneBatch)
  }
}

/// Reads a PNG of a test's folder.
func readPicture(_ file: URL) throws -> Picture {
  try PNG.read(Array(Data(contentsOf: file)), place: file.lastPathComponent)
}
