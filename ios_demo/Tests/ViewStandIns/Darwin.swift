// A stand-in for type-checking on Linux: see README.md. What Apple's Foundation has, and that of Linux has not.
@_exported import Foundation
@_exported import FoundationNetworking

extension URL {
  public func startAccessingSecurityScopedResource() -> Bool { fatalError() }
  public func stopAccessingSecurityScopedResource() {}
  public func bookmarkData() throws -> Data { fatalError() }
  public init(resolvingBookmarkData data: Data, bookmarkDataIsStale: inout Bool) throws { fatalError() }
}

extension ProcessInfo {
  public enum ThermalState: Int, Sendable { case nominal, fair, serious, critical }
  public var thermalState: ThermalState { fatalError() }
  public var isLowPowerModeEnabled: Bool { fatalError() }
}

extension URLSessionConfiguration {
  public class func background(withIdentifier identifier: String) -> URLSessionConfiguration { fatalError() }
  public var sessionSendsLaunchEvents: Bool {
    get { fatalError() }
    set { fatalError() }
  }
  public var isDiscretionary: Bool {
    get { fatalError() }
    set { fatalError() }
  }
}

extension URLSession {
  public var allTasks: [URLSessionTask] { get async { fatalError() } }
}

extension URLSessionDownloadTask {
  public func cancelByProducingResumeData() async -> Data? { fatalError() }
}

// swift-format-ignore
public let NSURLSessionDownloadTaskResumeData = "NSURLSessionDownloadTaskResumeData"
