import Foundation
import PocketDiffusion

/// An error as a person sees it.
public struct Message: Equatable, Sendable {
  /// What is wrong, in a few words.
  public let title: Phrase
  /// What it means, and what to do.
  public let text: Phrase
  /// Each file that is missing or wrong.
  public let files: [Phrase]
  /// What the engine or the system said, in its own words.
  public let detail: String?
  /// All of it in English, for reports.
  public private(set) var english = ""

  private init(
    _ title: TextKey, _ text: TextKey, _ values: Phrase.Value..., files: [Phrase] = [], detail: String? = nil
  ) {
    self.title = Phrase(title)
    self.text = Phrase(text, values)
    self.files = files
    self.detail = detail
  }

  public init(_ error: any Error) {
    switch error {
    case let error as EngineError: self.init(engine: error)
    case let error as AppError: self.init(app: error)
    default: self.init(.errorUnexpected, .errorUnexpectedText, detail: error.localizedDescription)
    }
    english = error.localizedDescription
  }

  private init(app error: AppError) {
    switch error {
    case .photoUnreadable: self.init(.errorPhoto, .errorPhotoText)
    case .notKept(let said): self.init(.errorNotKept, .errorNotKeptText, detail: said)
    case .notSaved(let said): self.init(.errorNotSaved, .errorNotSavedText, detail: said)
    case .badAddress(let address): self.init(.errorAddress, .addressWrong, detail: address.isEmpty ? nil : address)
    case .badArguments(let why): self.init(.errorUnexpected, .errorUnexpectedText, detail: why)
    }
  }

  private init(engine error: EngineError) {
    switch error {
    case .notABundle(let folder, let why):
      self.init(.errorNotABundle, .errorNotABundleText, detail: "\(folder): \(why)")
    case .wrongVersion(let found, let known):
      let text: TextKey = found > known ? .errorVersionNewerText : .errorVersionOlderText
      self.init(.errorVersion, text, .text("\(found)"), .text("\(known)"))
    case .refusal(let what): self.init(.errorRefusal, .errorRefusalText, .text(what))
    case .notWhole(let faults):
      self.init(.errorNotWhole, .errorNotWholeText, files: faults.map(Self.line))
    case .unreadable(let path, let said):
      self.init(.errorUnreadable, .errorUnreadableText, .text(path), detail: said)
    case .downloadBroken(let doneBytes, let said):
      self.init(.errorDownload, .errorDownloadText, .phrase(Numbers.bytes(doneBytes)), detail: said)
    case .storageFull(let needsBytes, let leftBytes):
      self.init(
        .errorStorage, .errorStorageText, .phrase(Numbers.bytes(leftBytes)), .phrase(Numbers.bytes(needsBytes)))
    case .contradiction(let place, let why):
      self.init(.errorContradiction, .errorContradictionText, .text(place), detail: why)
    case .proofFailed(let subject): self.init(.errorProof, .errorProofText, detail: subject)
    case .proofNotInstalled(let path): self.init(.errorNoProof, .errorNoProofText, .text(path))
    case .badRequest(let why): self.init(.errorRequest, .errorRequestText, detail: why)
    case .engineFailure(let graph, let said): self.init(.errorEngine, .errorEngineText, .text(graph), detail: said)
    case .engineTooOld(let graph, let engine, let needs, let has):
      self.init(.errorEngineOld, .errorEngineOldText, .text(graph), .text(engine), .text(needs), .text(has))
    case .cannotRunHere(let graph, let why): self.init(.errorNotHere, .errorNotHereText, detail: "\(graph): \(why)")
    case .unitNotHere(_, let unit, let engine):
      self.init(.errorUnit, .errorUnitText, .phrase(Self.unit(unit)), .text(engine))
    case .unitKnownBad(let graph, let unit, let note):
      self.init(
        .errorUnitBad, .errorUnitBadText, .text(graph), .phrase(Self.unit(unit)), detail: note.isEmpty ? nil : note)
    case .notFinite(let graph, let output):
      self.init(.errorNotFinite, .errorNotFiniteText, .text(graph), .text(output))
    case .cancelled: self.init(.cancelled, .cancelledText)
    case .notEnoughMemory(let needsBytes, let leftBytes):
      self.init(.errorMemory, .errorMemoryText, .phrase(Numbers.bytes(needsBytes)), .phrase(Numbers.bytes(leftBytes)))
    }
  }

  /// cpu, gpu and ane as people write them.
  public static func unit(_ unit: String) -> Phrase {
    switch unit {
    case "cpu": Phrase(.unitCpu)
    case "gpu": Phrase(.unitGpu)
    case "ane": Phrase(.unitAne)
    default: Phrase(.unitOther, .text(unit))
    }
  }

  private static func line(_ fault: Fault) -> Phrase {
    let key: TextKey =
      switch fault.kind {
      case .missing: .faultMissing
      case .extra: .faultExtra
      case .link: .faultLink
      case .size: .faultSize
      case .content: .faultContent
      }
    return Phrase(key, .text(fault.path))
  }
}

/// What goes wrong in the app itself.
public enum AppError: Error, Equatable, Sendable {
  case photoUnreadable
  /// The app's own file of the last picture was not written.
  case notKept(said: String)
  /// The photo library did not take a picture.
  case notSaved(said: String)
  /// No address of a zip on a server.
  case badAddress(String)
  /// Launch arguments that are not understood.
  case badArguments(why: String)
}

extension AppError: LocalizedError {
  public var errorDescription: String? {
    switch self {
    case .photoUnreadable: "The photo cannot be read."
    case .notKept(let said): "The picture was drawn, but not written: \(said)"
    case .notSaved(let said): "The picture was not saved: \(said)"
    case .badAddress(let address): "\(address) is not an address of a zip: it begins with https:// and names a server."
    case .badArguments(let why): "The launch arguments are not understood: \(why)."
    }
  }
}
