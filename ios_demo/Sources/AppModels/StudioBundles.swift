import Foundation
import PocketDiffusion

/// Which bundles there are, and which is drawn with.
extension Studio {
  /// Looks again at what lies in the folders.
  public func look() async {
    var places = folders.places()
    if let picked = pickedPlace() { places.append(picked) }
    bundles = await Task.detached { [phone] in
      places.map { place in
        let began = place.origin == .picked && phone.beginAccess(place.folder)
        defer { if began { phone.endAccess(place.folder) } }
        return Inspected(place)
      }
    }.value
  }

  /// Compares all files of a bundle with its manifest, and draws with it from now on.
  public func open(_ place: Place) {
    begin(Work(.open, name: place.name)) { work in try await self.openNow(place, work) }
  }

  /// Takes a zip or a folder that was picked in Files.
  public func pick(_ url: URL) {
    if url.pathExtension.lowercased() == "zip" {
      let name = folders.freeName(url.lastPathComponent)
      begin(Work(.unpack, name: name)) { work in
        let began = self.phone.beginAccess(url)
        defer { if began { self.phone.endAccess(url) } }
        try await self.unpack(url, name: name, work)
      }
    } else {
      begin(Work(.open, name: url.lastPathComponent)) { work in
        let began = self.phone.beginAccess(url)
        defer { if began { self.phone.endAccess(url) } }
        let bookmark = try self.phone.bookmark(url)
        try await self.openNow(Place(folder: url, origin: .picked), work)
        self.keptPicked.write(bookmark)  // a folder that is not a bundle leaves the one before to be found
        await self.look()
      }
    }
  }

  /// Removes a bundle that the app may remove: what is built in or lies elsewhere stays, the latter is forgotten.
  public func delete(_ place: Place) async {
    if work != nil { return }
    if opened?.place.id == place.id { await closeBundle() }
    switch place.origin {
    case .own, .shared: try? FileManager.default.removeItem(at: place.folder)
    case .picked: keptPicked.remove()
    case .shipped: return
    }
    await look()
    await removeCompiled()
  }

  func unpack(_ zip: URL, name: String, _ work: Work) async throws {
    try folders.makeOwn()
    let folder = folders.own.appendingPathComponent(name)
    let (digests, left, cancellation) = (digests, phone.leftStorage, work.cancellation)
    try await offMain(work) { report in
      try BundleImport(folder: folder, digests: digests, leftBytes: left).unzip(zip) { done, total in
        try cancellation.check()
        report(done, total)
      }
    }
    await look()
    try await openNow(Place(folder: folder, origin: .own), work)
  }

  private func pickedPlace() -> Place? {
    guard let bookmark = keptPicked.read(), let (folder, isStale) = try? phone.resolve(bookmark) else { return nil }
    if isStale {
      let began = phone.beginAccess(folder)
      defer { if began { phone.endAccess(folder) } }
      if let fresh = try? phone.bookmark(folder) { keptPicked.write(fresh) }
    }
    return Place(folder: folder, origin: .picked)
  }

  private func openNow(_ place: Place, _ work: Work) async throws {
    await closeBundle()
    if settings.bundle != place.id { settings.forgetBundle() }
    if place.origin == .picked, phone.beginAccess(place.folder) { accessed = place.folder }
    let (digests, engines, verdicts) = (digests, engines, verdicts)
    let (memory, cancellation) = (phone.leftMemory, work.cancellation)
    do {
      opened = try await offMain(work) { report in
        try Opened(
          place, digests: digests, engines: engines, verdicts: verdicts, memory: memory, cancellation: cancellation,
          onProgress: report)
      }
    } catch {
      await closeBundle()
      throw error
    }
    settings.bundle = place.id
    if let unit = settings.unit, opened?.units.contains(unit) != true { settings.unit = nil }
    await showPhoto()
    await removeCompiled()
  }

  /// Removes what engines keep beside bundles that are gone, or kept under another version of the system.
  private func removeCompiled() async {
    await Task.detached { [folders, phone, engines, opened, picked = pickedPlace()] in
      let began = picked.map { phone.beginAccess($0.folder) } ?? false
      defer { if began, let picked { phone.endAccess(picked.folder) } }
      let places = folders.places() + (picked.map { [$0] } ?? [])
      let bundles = places.compactMap { try? ModelBundle(folder: $0.folder) }
      for engine in engines { engine.keepOnly(for: bundles + (opened.map { [$0.bundle] } ?? [])) }
    }.value
  }

  private func closeBundle() async {
    await generator?.generator.close()
    generator = nil
    opened = nil
    tested = nil
    if let accessed { phone.endAccess(accessed) }
    accessed = nil
  }
}
