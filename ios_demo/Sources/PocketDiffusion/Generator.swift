import Dispatch

/// Draws pictures with a bundle. What this engine cannot do is refused when a generator is made, before anything is
/// drawn. Drawings are made one after the other, on a thread of their own.
public final class Generator: @unchecked Sendable {  // `pool` is used on `queue` alone
  public let bundle: ModelBundle
  public let pipeline: Pipeline
  let engine: any GraphEngine
  let tables: StepTables
  let tokenizers: [Tokenizer]
  let constants: Values
  let pool: GraphPool
  private let queue = DispatchQueue(label: "PocketDiffusion.Generator", qos: .userInitiated)
  private let residency: Residency
  private let availableMemory: @Sendable () -> Int64?

  /// Reads the pipeline, the tokenizers and the step tables of `bundle`, and opens no graph.
  ///
  /// - Parameters:
  ///   - residency: how long graphs stay open at most; a drawing that does not fit into memory keeps fewer of them.
  ///   - wishedUnit: where a graph is to run; on the unit that it was made for, if nothing else is said.
  ///   - availableMemory: the bytes that this app may still take, or nil where that is not known.
  public init(
    bundle: ModelBundle, engine: any GraphEngine, residency: Residency = .keep,
    wishedUnit: @escaping @Sendable (PipelineGraph) -> String = { $0.computeUnit },
    availableMemory: @escaping @Sendable () -> Int64? = DeviceMemory.available
  ) throws {
    self.bundle = bundle
    self.engine = engine
    self.residency = residency
    self.availableMemory = availableMemory
    let pipeline = try bundle.pipeline(format: engine.format)
    self.pipeline = pipeline
    tables = StepTables(index: pipeline.steps, file: try bundle.read(pipeline.steps.file))
    tokenizers = try pipeline.tokenizers.map { try Tokenizer(index: $0, bundle: bundle) }
    var constants: Values = [:]
    for ref in pipeline.program.constants { constants[ref.path] = try bundle.array(ref) }
    self.constants = constants
    pool = GraphPool(bundle: bundle, engine: engine, residency: residency, wishedUnit: wishedUnit)
    for stage in try stages(hasPicture: false) { try pipeline.graphs(of: stage).forEach(pool.check) }
  }

  /// Draws one picture. The sequence ends with `finished`, or throws an `EngineError`. A task that is cancelled, or stops
  /// listening, ends the drawing within a step; so does `cancellation`, and then the sequence throws `cancelled`.
  public func draw(
    _ request: Request, cancellation: Cancellation = Cancellation()
  ) -> AsyncThrowingStream<DrawEvent, any Error> {
    stream(cancellation) { say in
      let drawn = try self.drawNow(request, cancellation: cancellation, say: say)
      say(.finished(drawn))
    }
  }

  /// Closes all graphs, once a drawing that is on its way has ended, and gives units that failed another chance.
  public func close() async {
    await withCheckedContinuation { done in
      queue.async {
        self.pool.reset()
        done.resume()
      }
    }
  }

  /// Does `work` on this generator's own thread, and passes on what it says.
  func stream<Event: Sendable>(
    _ cancellation: Cancellation, work: @escaping @Sendable (@escaping (Event) -> Void) throws -> Void
  ) -> AsyncThrowingStream<Event, any Error> {
    AsyncThrowingStream { continuation in
      continuation.onTermination = { reason in
        if case .cancelled = reason { cancellation.cancel() }
      }
      queue.async {
        do {
          try work { continuation.yield($0) }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
    }
  }

  /// Draws on the calling thread, which has to be `queue`'s, or the only one that uses this generator.
  func drawNow(
    _ request: Request, cancellation: Cancellation = Cancellation(), say: (DrawEvent) -> Void = { _ in }
  ) throws -> Drawn {
    defer { pool.endStage() }
    try makeRoom(hasPicture: request.picture != nil)
    var drawing = try Drawing(generator: self, request: request, cancellation: cancellation)
    do {
      return try withoutActuallyEscaping(say) { try drawing.draw($0) }
    } catch {
      if error as? EngineError != .cancelled { pool.reset() }  // a graph that failed once is opened anew
      throw error
    }
  }

  /// Chooses how long graphs stay open. Those that a drawing before left open are closed where their memory is missing.
  /// Throws `notEnoughMemory`, with no graph open.
  private func makeRoom(hasPicture: Bool) throws {
    func choose() throws -> Residency {
      guard let left = availableMemory() else { return residency }
      let estimate = try MemoryEstimate(self, hasPicture: hasPicture)
      return try estimate.choose(left: left, wished: residency, open: pool.openNames)
    }
    if !pool.openNames.isEmpty, (try? choose()) != residency { pool.close() }
    pool.residency = try choose()
  }

  /// The variants of the stages that a drawing runs. Throws `refusal` where the program asks for what is not given here.
  func stages(hasPicture: Bool) throws -> [Stage] {
    let hosts = pipeline.program.hosts(tokenizers: tokenizers.count, hasPicture: hasPicture)
    let names = [Program.encodePrompt] + (hasPicture ? [Program.encodeImage] : []) + [Program.denoise, Program.decode]
    let stages = try names.compactMap { try pipeline.program.variant($0, hosts: hosts) }
    try pipeline.program.checkGiven(stages, hosts: hosts)
    return stages
  }
}
