import Foundation
import PocketDiffusion

/// What a self-test found, with the pictures that the page shows.
public struct Tested: Sendable {
  public let report: DeviceReport
  /// The original's picture; nil where the bundle has none.
  public let original: Picture?
  /// How near other pictures are to it, in dB, by what is other about them.
  public internal(set) var controls: [Control]
  /// Where the device report lies, to be shared.
  public let file: URL

  /// One picture by which a distance is measured.
  public struct Control: Equatable, Sendable, Identifiable {
    public enum Kind: String, Sendable, CaseIterable {
      case seed = "another seed"
      case step = "one step less"
      case prompt = "the prompt without its last word"
    }

    public let kind: Kind
    public let psnrDb: Double
    /// Whether this phone drew it, and not the original.
    public let isOwn: Bool
    public var id: Kind { kind }

    /// What is other about it.
    public var title: Phrase {
      switch kind {
      case .seed: Phrase(isOwn ? .controlOwnSeed : .controlSeed)
      case .step: Phrase(isOwn ? .controlOwnSteps : .controlSteps)
      case .prompt: Phrase(isOwn ? .controlOwnPrompt : .controlPrompt)
      }
    }

    public var distance: Phrase { Numbers.decibels(psnrDb) }
  }

  /// How near the phone's picture is, in words.
  public var distance: Phrase {
    guard let picture = report.picture else { return Phrase(.pictureNone, .text("")) }
    guard report.drawn != nil else { return Phrase(.pictureNone, .text(picture.note)) }
    switch picture.psnrDb {
    case .infinity: return Phrase(.pictureEqual)
    case Self.unseenDb...: return Phrase(.pictureUnseen)
    case Self.nearDb...: return Phrase(.pictureNear)
    default: return Phrase(.pictureFar)
    }
  }

  /// At most one or two levels of 255, as a rule.
  private static let unseenDb = 45.0
  private static let nearDb = 30.0

  /// The same in dB, with what it has to reach.
  public var decibels: Phrase? { report.picture?.decibels }

  /// What the controls say.
  public var comparison: Phrase {
    guard let picture = report.picture, let nearest = controls.map(\.psnrDb).max() else { return Phrase(.controlsNone) }
    let isNearer = picture.psnrDb > nearest
    if controls.contains(where: \.isOwn) { return Phrase(isNearer ? .controlsOwnNearer : .controlsOwnFurther) }
    return Phrase(isNearer ? .controlsNearer : .controlsFurther)
  }

  /// Yes, no, or that there was nothing to test by.
  public var verdict: Phrase {
    if report.passed { return Phrase(.verdictSame) }
    return Phrase(report.isWhole ? .verdictOther : .verdictNone)
  }

  /// What is wrong, or that nothing is.
  public var verdictText: Phrase {
    let graphs = report.drawing.filter { !$0.passed }.map(\.name)
    let others = (report.vectors + [report.picture].compactMap { $0 }).filter { !$0.passed }.map(\.subject)
    let wrong = graphs + others
    if !wrong.isEmpty { return Phrase(.verdictOtherText, .text(wrong.joined(separator: ", "))) }
    return Phrase(report.isWhole ? .verdictSameText : .verdictNoneText)
  }

  /// The graphs that failed on units which draw nothing here; nil: there are none.
  public var unusedUnits: Phrase? {
    let failed = report.graphs.filter { !$0.passed && !$0.draws }.map(\.name)
    return failed.isEmpty ? nil : Phrase(.unitsUnused, .text(failed.joined(separator: ", ")))
  }

  /// Tokenizer, noise, samplers and pictures: which fail.
  public var vectors: Phrase {
    let failed = report.vectors.filter { !$0.passed }.map(\.subject)
    let (good, all) = ("\(report.vectors.count - failed.count)", "\(report.vectors.count)")
    return failed.isEmpty
      ? Phrase(.vectorsAll, .text(good), .text(all))
      : Phrase(.vectorsSome, .text(good), .text(all), .text(failed.joined(separator: ", ")))
  }
}

extension Verdict {
  /// The dB, and what they have to reach where that is known.
  var decibels: Phrase {
    let floor = floorDb.map { Phrase(.graphFacts, .phrase(Numbers.decibels($0))) }
    return Phrase.list([Numbers.decibels(psnrDb)] + [floor].compactMap { $0 })
  }
}

extension UnitResult: Identifiable {
  public var id: String { "\(graph) \(unit)" }

  /// The graph and the unit, among others in a line.
  var name: String { "\(graph) (\(unit))" }

  /// The graph and the unit.
  public var title: Phrase { Phrase(.graphOn, .text(graph), .phrase(Message.unit(unit))) }

  /// The worst of its outputs beside the floor, or what went wrong.
  public var text: Phrase {
    if let error { return Phrase(.verbatim, .text(error)) }
    guard let worst = outputs.values.min(by: { $0.psnrDb < $1.psnrDb }) else { return Phrase(.notFinite) }
    return worst.decibels
  }

  /// How long a call takes; nil: it was not called.
  public var time: Phrase? {
    (medianCallSeconds ?? firstCallSeconds).map { Phrase(.graphTime, .phrase(Numbers.seconds($0))) }
  }
}
