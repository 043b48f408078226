#if canImport(CoreML)
  @preconcurrency import CoreML
  import Foundation

  /// Core ML packages that were compiled on this device, kept outside of the bundle by the digest of their files
  /// and the version of the system. `removeAll` ends what is needed no more.
  struct CompiledModels: Sendable {
    private static let ending = ".mlmodelc"

    /// Where they are kept: a folder of Caches, which backups pass over and the system may empty.
    let folder: URL

    /// Where the compiled form of a package is, once it was compiled. `files` are the sha256 of its files in order.
    ///
    /// Throws `engineFailure` with Core ML's words, `storageFull`, or `unreadable`.
    func find(_ package: URL, graph: String, files: [String], system: String) throws -> URL {
      let kept = place(files: files, system: system)
      if FileManager.default.fileExists(atPath: kept.path) { return kept }
      let compiled: URL
      do {
        compiled = try compile(package)
      } catch {
        throw EngineError.engineFailure(graph: graph, said: error.localizedDescription)
      }
      do {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        if !FileManager.default.fileExists(atPath: kept.path) {  // another generator may have been faster
          try FileManager.default.moveItem(at: compiled, to: kept)
        }
      } catch {
        throw EngineError.unreadable(path: kept.lastPathComponent, said: error.localizedDescription)
      }
      return kept
    }

    /// Forgets a compiled form that does not load, as after an update of the system.
    func remove(files: [String], system: String) {
      try? FileManager.default.removeItem(at: place(files: files, system: system))
    }

    /// Removes the compiled forms of all packages but those whose files `kept` lists, at this version of the system.
    func removeAll(but kept: [[String]], system: String) {
      let places = Set(kept.map { place(files: $0, system: system).lastPathComponent })
      let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
      for name in names where name.hasSuffix(Self.ending) && !places.contains(name) {
        try? FileManager.default.removeItem(at: folder.appendingPathComponent(name))
      }
    }

    private func place(files: [String], system: String) -> URL {
      let digest = SHA256.hex(of: Array((files + [system]).joined(separator: "\n").utf8))
      return folder.appendingPathComponent(digest + Self.ending, isDirectory: true)
    }

    /// Compiles a package; the caller's thread waits.
    private func compile(_ package: URL) throws -> URL {
      let done = DispatchSemaphore(value: 0)
      let answer = Answer()
      MLModel.compileModel(at: package) { result in
        answer.result = result
        done.signal()
      }
      done.wait()
      return try answer.result.get()
    }

    /// What the compiler answered: written before the semaphore is signalled, read after.
    private final class Answer: @unchecked Sendable {
      var result: Result<URL, any Error> = .failure(CocoaError(.fileNoSuchFile))
    }
  }
#endif
