import Foundation
import Observation
import PocketDiffusion

/// Something that takes its time, as the screens show it.
@MainActor @Observable public final class Work {
  public enum Kind: Sendable {
    case open, unpack, download, draw, test
  }

  public let kind: Kind
  public let name: String
  let cancellation = Cancellation()

  /// Bytes, steps or parts that are done, of how many; 0 of 0: it is not known.
  public private(set) var done: Int64 = 0
  public private(set) var total: Int64 = 0
  /// A stage of the program, or a part of a self-test.
  public private(set) var stage = ""
  /// The graph that is opened, which the first time can take minutes; nil: none is.
  public private(set) var opening: (graph: String, unit: String)?
  public private(set) var preview: Picture?
  private var stepSeconds: [Double] = []

  init(_ kind: Kind, name: String) {
    self.kind = kind
    self.name = name
  }

  public var fraction: Double? { total > 0 ? min(Double(done) / Double(total), 1) : nil }

  public var secondsPerStep: Double? { median(stepSeconds) }

  /// What it is, in a few words.
  public var title: Phrase {
    switch kind {
    case .open: Phrase(.workOpen, .text(name))
    case .unpack: Phrase(.workImport, .text(name))
    case .download: Phrase(.workDownload)
    case .draw: opening.map { Phrase(.stageOpening, .text($0.graph), .phrase(Message.unit($0.unit))) } ?? stageTitle
    case .test: Phrase(.workTest)
    }
  }

  /// How far it is; nil: there is nothing to say.
  public var text: Phrase? {
    switch kind {
    case .draw: opening == nil ? steps : Phrase(.stageOpeningText)
    case .test: stage.isEmpty ? nil : Phrase(.verbatim, .text(stage))
    case .open, .unpack, .download: bytes
    }
  }

  private var stageTitle: Phrase {
    switch stage {
    case "encode_image": Phrase(.stagePhoto)
    case "denoise": Phrase(.stageDenoise)
    case "decode": Phrase(.stageDecode)
    default: Phrase(.stagePrompt)
    }
  }

  private var bytes: Phrase? {
    if total > 0 { return Phrase(.partOf, .phrase(Numbers.bytes(done)), .phrase(Numbers.bytes(total))) }
    return done > 0 ? Numbers.bytes(done) : nil
  }

  private var steps: Phrase? {
    guard let perStep = secondsPerStep else { return nil }
    let left = perStep * Double(total - done)
    let step = Phrase(.stepOf, .text("\(done)"), .text("\(total)"))
    let time = Phrase(.perStep, .phrase(Numbers.seconds(perStep)))
    let all = left < 1 ? [step, time] : [step, time, Phrase(.timeLeft, .phrase(Numbers.seconds(left)))]
    return Phrase.list(all)
  }

  func report(_ done: Int64, of total: Int64) {
    self.done = done
    self.total = total
  }

  func report(_ event: DrawEvent) {
    switch event {
    case .stage(let name):
      stage = name
      opening = nil
    case .opening(let graph, let unit): opening = (graph, unit)
    case .step(let step):
      opening = nil
      stepSeconds.append(step.seconds)
      report(Int64(step.row), of: Int64(step.rows))
      if let picture = step.preview() { preview = picture }
    case .finished: break
    }
  }

  func report(part subject: String, _ done: Int, of total: Int) {
    stage = subject
    report(Int64(done), of: Int64(total))
  }
}
