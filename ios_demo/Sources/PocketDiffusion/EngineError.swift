import Foundation

/// What can go wrong, by type. `errorDescription` is a sentence for a person: what is wrong, and what to do. An app that
/// speaks another language takes the case and its facts.
public enum EngineError: Error, Equatable, Sendable {
  /// The folder is not a bundle at all.
  case notABundle(folder: String, why: String)
  /// A bundle of a version that this engine does not read.
  case wrongVersion(found: Int, known: Int)
  /// Something in the bundle that this engine does not know, and must not guess.
  case refusal(what: String)
  /// Files are missing, changed or too many: each one is named.
  case notWhole([Fault])
  /// The system did not let a file be read or written.
  case unreadable(path: String, said: String)
  /// A download broke off; `doneBytes` are kept, and the next one goes on from there.
  case downloadBroken(doneBytes: Int64, said: String)
  /// There is no room for a bundle.
  case storageFull(needsBytes: Int64, leftBytes: Int64)
  /// A file whose bytes are those of the manifest, but which says what cannot be.
  case contradiction(place: String, why: String)
  /// The bundle failed its proof: its pictures are not those of the model.
  case proofFailed(subject: String?)
  /// Something was asked for that only the whole bundle holds.
  case proofNotInstalled(path: String)
  /// What the user asked for cannot be drawn: a seed that is not a number, a strength that leaves no step.
  case badRequest(why: String)
  /// The engine could not open or run a graph, in its own words.
  case engineFailure(graph: String, said: String)
  /// The graph needs a newer engine than the app has.
  case engineTooOld(graph: String, engine: String, needs: String, has: String)
  /// This device or this app cannot run the file at all.
  case cannotRunHere(graph: String, why: String)
  /// The app has no such compute unit on this device.
  case unitNotHere(graph: String, unit: String, engine: String)
  /// The manifest says that the graph's results are wrong on this unit.
  case unitKnownBad(graph: String, unit: String, note: String)
  /// A graph gave NaN or an infinity.
  case notFinite(graph: String, output: String)
  /// The user cancelled.
  case cancelled
  /// The app may take less memory than the drawing takes, with as few graphs open at a time as can be.
  case notEnoughMemory(needsBytes: Int64, leftBytes: Int64)
}

extension EngineError: LocalizedError {
  public var errorDescription: String? {
    switch self {
    case .notABundle(let folder, let why):
      "\(folder) is not a bundle: \(why). Choose the folder that pocketdiffusion export wrote."
    case .wrongVersion(let found, let known):
      "This is a bundle of version \(found), and the app reads version \(known): "
        + (found > known ? "install a newer app." : "export the model again.")
    case .refusal(let what):
      "The bundle asks for something that this app does not know: \(what). A newer app may."
    case .notWhole(let faults):
      "The bundle is not whole: \(Self.list(faults)). Copy it to the phone again."
    case .unreadable(let path, let said):
      "\(path) cannot be read: \(said). Copy the bundle to the phone again."
    case .downloadBroken(let doneBytes, let said):
      "The download broke off after \(megabytes(doneBytes)): \(said). Start it again: it goes on from there."
    case .storageFull(let needsBytes, let leftBytes):
      "The bundle takes \(megabytes(needsBytes)) of storage, and \(megabytes(leftBytes)) are left: make room, and "
        + "try again."
    case .contradiction(let place, let why):
      "\(place): \(why). Export the model again."
    case .proofFailed(let subject):
      "This bundle failed its proof\(subject.map { ", \($0) above all" } ?? ""): its pictures may be wrong. "
        + "Export the model again."
    case .proofNotInstalled(let path):
      "Proof part not installed: \(path) is in the whole bundle alone, as export wrote it."
    case .badRequest(let why):
      why
    case .engineFailure(let graph, let said):
      "The engine cannot run \(graph): \(said)"
    case .engineTooOld(let graph, let engine, let needs, let has):
      "\(graph) needs \(engine) \(needs) or newer, and here is \(has): update the phone or the app."
    case .cannotRunHere(let graph, let why):
      "\(graph) cannot be run here: \(why)."
    case .unitNotHere(let graph, let unit, let engine):
      "\(graph) cannot run on the unit \(unit): \(engine) has none in this app or on this device."
    case .unitKnownBad(let graph, let unit, let note):
      "\(graph) is known to be wrong on the unit \(unit)\(note.isEmpty ? "" : ": \(note)"). Choose another unit."
    case .notFinite(let graph, let output):
      "\(graph) gave numbers that are not finite in \(output): this unit cannot run it. Choose another unit."
    case .cancelled:
      "Cancelled."
    case .notEnoughMemory(let needsBytes, let leftBytes):
      "Drawing takes about \(megabytes(needsBytes)) of memory, and the app has \(megabytes(leftBytes)) left: close other "
        + "apps, or export the model with a smaller recipe or picture."
    }
  }

  private static let shown = 5

  private static func list(_ faults: [Fault]) -> String {
    let rest = faults.count > shown ? "; and \(faults.count - shown) more" : ""
    return faults.prefix(shown).map(\.description).joined(separator: "; ") + rest
  }
}

/// Writes a number of bytes for a person, in whole MB.
func megabytes(_ bytes: Int64) -> String { "\(bytes >> 20) MB" }
