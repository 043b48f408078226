import Foundation
import PocketDiffusion

/// Draws on this phone what the original drew, and what else it takes to judge the distance.
struct SelfTesting: Sendable {
  private static let proof = "proof.json"

  let opened: Opened
  let generator: Generator

  /// The controls that were recorded with the original, which only the whole bundle has; nil: it has not.
  func recordedControls() throws -> [Tested.Control]? {
    guard let told = opened.bundle.manifest.picture, opened.bundle.manifest.files[Self.proof] != nil else { return nil }
    do {
      let file = try JSONDecoder().decode(ProofFile.self, from: Data(opened.bundle.text(Self.proof).utf8))
      guard let golden = file.golden.first(where: { $0.image == told.image }) else { return nil }
      return Tested.Control.Kind.allCases.compactMap { kind in
        guard case .number(let db)? = golden.controls[kind.rawValue] else { return nil }
        return Tested.Control(kind: kind, psnrDb: db, isOwn: false)
      }
    } catch EngineError.proofNotInstalled {
      return nil
    } catch is DecodingError {  // a proof of another form than this app knows
      return nil
    }
  }

  /// The same controls, drawn on this phone and compared with the original's picture.
  func drawControls(
    beside original: Picture, cancellation: Cancellation, onPart: @MainActor (Tested.Control.Kind, Int, Int) -> Void
  ) async throws -> [Tested.Control] {
    guard let told = opened.bundle.manifest.picture else { return [] }
    var made: [Tested.Control] = []
    let requests = Self.controlRequests(told)
    for (n, (kind, request)) in requests.enumerated() {
      await onPart(kind, n, requests.count)
      for try await event in generator.draw(request, cancellation: cancellation) {
        guard case .finished(let drawn) = event else { continue }
        made.append(Tested.Control(kind: kind, psnrDb: Compare.psnr(original, drawn.picture), isOwn: true))
      }
    }
    return made
  }

  static func controlRequests(_ told: Manifest.OriginalPicture) -> [(Tested.Control.Kind, Request)] {
    let same = Request(
      prompt: told.prompt, negativePrompt: told.negativePrompt, seed: told.seed, steps: told.steps,
      guidance: told.guidance, sampler: told.sampler)
    return Tested.Control.Kind.allCases.compactMap { kind in
      var request = same
      switch kind {
      case .seed: request.seed = told.seed == "4321" ? "1234" : "4321"
      case .step:
        if told.steps < 2 { return nil }
        request.steps = told.steps - 1
      case .prompt:
        let words = told.prompt.split(separator: " ")
        if words.count < 2 { return nil }
        request.prompt = words.dropLast().joined(separator: " ")
      }
      return (kind, request)
    }
  }

  private struct ProofFile: Decodable {
    /// Infinity is a string in bundles, and no control.
    enum Level: Decodable {
      case number(Double)
      case other

      init(from decoder: any Decoder) throws {
        let value = try? decoder.singleValueContainer().decode(Double.self)
        self = value.map { .number($0) } ?? .other
      }
    }

    struct Golden: Decodable {
      let image: String
      let controls: [String: Level]
    }

    let golden: [Golden]
  }
}
