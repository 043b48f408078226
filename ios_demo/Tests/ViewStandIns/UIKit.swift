// A stand-in for type-checking on Linux: see README.md.
@_exported import Combine
@_exported import Foundation

public struct UIBackgroundTaskIdentifier: Hashable, Sendable {
  public static let invalid = UIBackgroundTaskIdentifier()
}

@MainActor public final class UIApplication {
  public static var shared: UIApplication { fatalError() }
  public nonisolated static var didReceiveMemoryWarningNotification: Notification.Name { fatalError() }
  public var isIdleTimerDisabled: Bool {
    get { fatalError() }
    set { fatalError() }
  }
  public func beginBackgroundTask(expirationHandler: (@MainActor @Sendable () -> Void)? = nil)
    -> UIBackgroundTaskIdentifier
  { fatalError() }
  public func endBackgroundTask(_ identifier: UIBackgroundTaskIdentifier) {}
}

extension NotificationCenter {
  public struct Publisher: Combine.Publisher, Sendable {
    public typealias Output = Notification
    public typealias Failure = Never
  }
  public func publisher(for name: Notification.Name, object: AnyObject? = nil) -> Publisher { fatalError() }
}
