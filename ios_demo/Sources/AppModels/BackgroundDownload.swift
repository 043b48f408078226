#if canImport(Darwin)
  import Foundation

  /// A background session of iOS: it goes on while the app is suspended or ended by the system, and is kept where the
  /// connection breaks.
  @MainActor public final class BackgroundDownload: DownloadSession {
    public nonisolated static let identifier = "pocketdiffusion.download"

    private let delegate = Delegate()
    private let session: URLSession

    public init() {
      let configuration = URLSessionConfiguration.background(withIdentifier: Self.identifier)
      configuration.sessionSendsLaunchEvents = true
      configuration.isDiscretionary = false
      session = URLSession(configuration: configuration, delegate: delegate, delegateQueue: nil)
    }

    public func load(_ address: URL, resume: Data?) -> AsyncStream<DownloadEvent> {
      let task = resume.map { session.downloadTask(withResumeData: $0) } ?? session.downloadTask(with: address)
      let events = delegate.listen()
      task.resume()
      return events
    }

    public func running() async -> (address: URL, events: AsyncStream<DownloadEvent>)? {
      let address = await downloadTasks().first?.originalRequest?.url ?? delegate.endedUnheard
      return address.map { ($0, delegate.listen()) }
    }

    public func stop() {
      Task {
        for task in await downloadTasks() { _ = await task.cancelByProducingResumeData() }
      }
    }

    private func downloadTasks() async -> [URLSessionDownloadTask] {
      await session.allTasks.compactMap { $0 as? URLSessionDownloadTask }
    }
  }

  /// Hears of the session's one task, on the session's own thread.
  private final class Delegate: NSObject, URLSessionDownloadDelegate, @unchecked Sendable {  // by `lock`
    private let lock = NSLock()
    private var listener: AsyncStream<DownloadEvent>.Continuation?
    private var unheard: (address: URL?, event: DownloadEvent)?  // what came to an end before anybody listened

    /// The address of a download that ended before anybody listened.
    var endedUnheard: URL? { lock.withLock { unheard?.address } }

    func listen() -> AsyncStream<DownloadEvent> {
      let (events, says) = AsyncStream.makeStream(of: DownloadEvent.self)
      let ended = lock.withLock {
        defer { unheard = nil }
        listener = says
        return unheard
      }
      if let ended { say(ended.event, of: nil) }
      return events
    }

    func urlSession(
      _ session: URLSession, downloadTask: URLSessionDownloadTask, didWriteData bytesWritten: Int64,
      totalBytesWritten: Int64, totalBytesExpectedToWrite: Int64
    ) {
      say(.bytes(done: totalBytesWritten, total: max(totalBytesExpectedToWrite, 0)), of: downloadTask)
    }

    func urlSession(_ session: URLSession, downloadTask: URLSessionDownloadTask, didFinishDownloadingTo location: URL) {
      let code = (downloadTask.response as? HTTPURLResponse)?.statusCode ?? 200
      if !(200..<300).contains(code) { return say(.broken(said: "HTTP \(code)", resume: nil), of: downloadTask) }
      let kept = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).zip")
      do {
        try FileManager.default.moveItem(at: location, to: kept)  // the system removes it behind this call
        say(.finished(kept), of: downloadTask)
      } catch {
        say(.broken(said: error.localizedDescription, resume: nil), of: downloadTask)
      }
    }

    func urlSession(_ session: URLSession, task: URLSessionTask, didCompleteWithError error: (any Error)?) {
      guard let error = error as NSError? else { return }  // it finished
      let resume = error.userInfo[NSURLSessionDownloadTaskResumeData] as? Data
      say(.broken(said: error.localizedDescription, resume: resume), of: task)
    }

    private func say(_ event: DownloadEvent, of task: URLSessionTask?) {
      let isLast = if case .bytes = event { false } else { true }
      let listener = lock.withLock {
        if self.listener == nil && isLast { unheard = (task?.originalRequest?.url, event) }
        defer { if isLast { self.listener = nil } }
        return self.listener
      }
      listener?.yield(event)
      if isLast { listener?.finish() }
    }
  }
#endif
