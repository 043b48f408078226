import Foundation
import PocketDiffusion

/// What the screens ask of the studio, in words.
extension Studio {
  /// The folder that Files and a computer see.
  public var documents: URL { folders.shared ?? folders.support }

  /// Whether something can be drawn or tested now.
  public var canDrawAnything: Bool { opened != nil && work == nil }

  public var canDraw: Bool { canDrawAnything && settings.isSeedGood }

  public func steps(_ opened: Opened) -> Int { settings.steps ?? opened.pipeline.defaults.steps }

  public func guidance(_ opened: Opened) -> Double { settings.guidance ?? opened.pipeline.defaults.guidance }

  public func strength(_ opened: Opened) -> Double { settings.strength ?? opened.pipeline.defaults.strength }

  /// The steps that the chosen sampler has tables for.
  public func stepRange(_ opened: Opened) -> ClosedRange<Double> {
    let counts = opened.pipeline.stepCounts(sampler: settings.sampler ?? opened.pipeline.steps.defaultSampler)
    let (least, most) = (counts.first ?? 1, counts.last ?? 1)
    return Double(least)...Double(max(most, least + 1))
  }

  /// Takes the seed of a picture, and keeps it.
  public func useSeed(_ seed: String) {
    settings.seed = seed
    settings.keepsSeed = true
  }

  /// Goes back to what the bundle says.
  public func useDefaults() { settings.forgetBundle() }

  /// The memory that a drawing takes and the phone has; nil: neither is known.
  public func memory(_ opened: Opened) -> Phrase? {
    guard let left = phone.leftMemory() else { return nil }
    let free = Phrase.Value.phrase(Numbers.bytes(left))
    let ways = Residency.allCases.map { opened.peakBytes(hasPhoto: photo != nil, $0) }
    guard let all = ways[0], let usual = ways[1], let least = ways[2] else { return Phrase(.memoryLeft, free) }
    func phrase(_ key: TextKey, _ needs: Int64) -> Phrase { Phrase(key, .phrase(Numbers.bytes(needs)), free) }
    if least > left { return phrase(.memoryShort, least) }
    if settings.leastMemory { return phrase(.memory, least) }
    return usual > left ? phrase(.memoryLess, least) : phrase(.memory, min(all, left))
  }

  /// The units to choose from. What a self-test found may add some: `tested` is read, so that screens follow it.
  public func units(_ opened: Opened) -> [String] {
    _ = tested
    return opened.units
  }

  /// What is to say of units that are not used, as of the last self-test.
  public func unitNotes(_ opened: Opened) -> [Phrase] {
    _ = tested
    return opened.unitNotes
  }

  /// What a person should know of the bundle on this phone.
  public func notices(_ opened: Opened) -> [Phrase] {
    opened.bundle.notices().map { notice in
      switch notice {
      case .madeFor(let phone): Phrase(.otherTarget, .text(phone))
      case .lessMemory(let phone, let phoneMB, let hereMB):
        Phrase(
          .lessMemory, .text(phone), .phrase(Numbers.bytes(Int64(phoneMB) << 20)),
          .phrase(Numbers.bytes(Int64(hereMB) << 20)))
      case .unproven: Phrase(.errorProof)
      }
    }
  }

  /// How much the prompt counts.
  public func guidanceText(_ opened: Opened) -> Phrase {
    let guidance = guidance(opened)
    return guidance > 1 ? Phrase(.verbatim, .text(guidance.formatted())) : Phrase(.guidanceNone)
  }

  /// What the button of the download says.
  public var downloadKey: TextKey {
    let isBroken = brokenDownload?.canResume == true && brokenDownload?.address.absoluteString == settings.address
    return isBroken ? .downloadResume : .download
  }

  public var brokenDownloadText: Phrase? {
    brokenDownload.map {
      Phrase(
        $0.canResume ? .downloadBroken : .downloadBrokenAnew, .text($0.address.absoluteString),
        .phrase(Numbers.bytes($0.doneBytes)))
    }
  }
}

extension Finished {
  /// How long it took; nil: it is of an earlier run of the app.
  public var made: Phrase? {
    guard let seconds, let secondsPerStep else { return nil }
    let facts = Phrase(.pictureFacts, .text(facts["seed"] ?? ""), .text(facts["steps"] ?? ""))
    return Phrase.list([
      facts, Phrase(.pictureTime, .phrase(Numbers.seconds(seconds)), .phrase(Numbers.seconds(secondsPerStep))),
    ])
  }

  /// What the person should know of it.
  public var notes: [Phrase] {
    var notes: [Phrase] = []
    if !cut.isEmpty { notes.append(Phrase(.cut, .text(cut))) }
    if !negativeCut.isEmpty { notes.append(Phrase(.cutNegative, .text(negativeCut))) }
    if isOneByOne { notes.append(Phrase(.oneByOne)) }
    for (graph, message) in fallbacks.sorted(by: { $0.key < $1.key }) {
      notes.append(Phrase(.fallback, .text(graph), .phrase(message.text)))
    }
    return notes
  }
}

extension Inspected {
  /// What it is and how large.
  public var text: Phrase {
    guard let model, let target else { return Phrase(origin) }
    return Phrase.list([
      Phrase(.verbatim, .text(model)), Phrase(.madeFor, .text(target)), Numbers.bytes(bytes), Phrase(origin),
    ])
  }

  private var origin: TextKey {
    switch place.origin {
    case .shipped: .originShipped
    case .shared: .originShared
    case .own: .originOwn
    case .picked: .originPicked
    }
  }
}

extension Place {
  public var isRemovable: Bool { origin != .shipped }
}
