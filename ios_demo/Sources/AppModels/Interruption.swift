import Foundation

/// Remembers on disk what is being drawn, so that the next start knows what the system ended.
struct Interruption {
  private let kept: Kept<Wish>

  init(folder: URL) { kept = Kept(file: folder.appendingPathComponent("drawing.json")) }

  /// What the last process was drawing when it ended; nil: it was not.
  func read() -> Wish? { kept.read() }

  func begin(_ wish: Wish) { kept.write(wish) }

  func end() { kept.remove() }
}
