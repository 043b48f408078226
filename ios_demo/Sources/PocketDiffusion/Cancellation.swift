import Foundation

/// A wish to stop, which any thread may say.
public final class Cancellation: @unchecked Sendable {  // `lock` guards what changes
  private let lock = NSRecursiveLock()  // a stop may ask whether it is cancelled
  private var stopped = false
  private var stop: (() -> Void)?

  public init() {}

  public var isCancelled: Bool { lock.withLock { stopped } }

  public func cancel() {
    lock.withLock {
      stopped = true
      stop?()
    }
  }

  /// Throws `cancelled` where it was wished.
  public func check() throws {
    if isCancelled { throw EngineError.cancelled }
  }

  /// Does `work`, which `stop`, called from another thread, ends early. After `work` no `stop` is called any more.
  public func during<Result>(stop: @escaping () -> Void, work: () throws -> Result) throws -> Result {
    try lock.withLock {
      if stopped { throw EngineError.cancelled }
      self.stop = stop
    }
    defer { lock.withLock { self.stop = nil } }
    return try work()
  }
}
