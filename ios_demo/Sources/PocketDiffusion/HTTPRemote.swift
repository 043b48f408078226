import Foundation

#if canImport(FoundationNetworking)
  import FoundationNetworking
#endif

/// A folder of a web server, such as a repository's .../resolve/main.
public final class HTTPRemote: Remote {
  private let address: URL
  private let configuration: URLSessionConfiguration

  public init(_ address: URL, configuration: URLSessionConfiguration = .ephemeral) {
    self.address = address
    self.configuration = configuration
  }

  public func read(
    _ path: String, from: Int64, onBegin: @escaping @Sendable (Int64) throws -> Void,
    onPiece: @escaping @Sendable (Data) throws -> Void
  ) async throws {
    var request = URLRequest(url: address.appendingPathComponent(path))
    request.setValue("identity", forHTTPHeaderField: "Accept-Encoding")
    if from > 0 { request.setValue("bytes=\(from)-", forHTTPHeaderField: "Range") }
    let reading = Reading(from: from, onBegin: onBegin, onPiece: onPiece)
    let session = URLSession(configuration: configuration, delegate: reading, delegateQueue: nil)
    defer { session.finishTasksAndInvalidate() }
    let task = session.dataTask(with: request)
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { done in
        reading.start(task, done)
      }
    } onCancel: {
      task.cancel()
    }
  }

  /// One answer of the server. The session calls it on one queue.
  private final class Reading: NSObject, URLSessionDataDelegate, @unchecked Sendable {
    private let from: Int64
    private let onBegin: @Sendable (Int64) throws -> Void
    private let onPiece: @Sendable (Data) throws -> Void
    private var done: CheckedContinuation<Void, any Error>?
    private var failure: (any Error)?

    init(
      from: Int64, onBegin: @escaping @Sendable (Int64) throws -> Void,
      onPiece: @escaping @Sendable (Data) throws -> Void
    ) {
      self.from = from
      self.onBegin = onBegin
      self.onPiece = onPiece
    }

    func start(_ task: URLSessionDataTask, _ done: CheckedContinuation<Void, any Error>) {
      self.done = done
      task.resume()
    }

    func urlSession(
      _ session: URLSession, dataTask: URLSessionDataTask, didReceive response: URLResponse,
      completionHandler: @escaping (URLSession.ResponseDisposition) -> Void
    ) {
      let code = (response as? HTTPURLResponse)?.statusCode ?? 0
      do {
        switch code {
        case 206: try onBegin(from)
        case 200: try onBegin(0)
        default: throw ServerAnswer(code: code)
        }
        completionHandler(.allow)
      } catch {
        failure = error
        completionHandler(.cancel)
      }
    }

    func urlSession(_ session: URLSession, dataTask: URLSessionDataTask, didReceive data: Data) {
      if failure != nil { return }
      do {
        try onPiece(data)
      } catch {
        failure = error
        dataTask.cancel()
      }
    }

    func urlSession(_ session: URLSession, task: URLSessionTask, didCompleteWithError error: (any Error)?) {
      if let error = failure ?? error { done?.resume(throwing: error) } else { done?.resume() }
      done = nil
    }
  }

  private struct ServerAnswer: LocalizedError {
    let code: Int
    var errorDescription: String? { "the server answered \(code)" }
  }
}
