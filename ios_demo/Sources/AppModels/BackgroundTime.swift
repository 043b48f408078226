/// The time that the system gives an app which is left in the midst of something: some 30 seconds on iOS. After that it
/// stands still and goes on when it is seen again. Each stay in the background asks for time of its own and gives back
/// that alone, once: iOS ends an app that keeps such time.
@MainActor public final class BackgroundTime<ID: Sendable> {
  private let begin: (_ expired: @escaping @MainActor @Sendable () -> Void) -> ID
  private let end: (ID) -> Void
  private var open: [Int: ID] = [:]
  private var count = 0

  /// - Parameters:
  ///   - begin: asks the system for time; what it is given is called when the time is over.
  ///   - end: gives the time back.
  public init(
    begin: @escaping (_ expired: @escaping @MainActor @Sendable () -> Void) -> ID, end: @escaping (ID) -> Void
  ) {
    self.begin = begin
    self.end = end
  }

  /// Asks for time until nothing is done any more.
  @discardableResult public func keepAlive(_ studio: Studio) -> Task<Void, Never> {
    count += 1
    let stay = count
    open[stay] = begin { [weak self] in self?.giveBack(stay) }
    return Task {
      await studio.enterBackground()
      await studio.idle()
      giveBack(stay)
    }
  }

  /// Gives back what is left: the app is seen again.
  public func giveBackAll() {
    for stay in open.keys { giveBack(stay) }
  }

  private func giveBack(_ stay: Int) {
    if let id = open.removeValue(forKey: stay) { end(id) }
  }
}
