import XCTest

@testable import PocketDiffusion

/// Programs are read from JSON as the pipeline file has them; what this engine does not know is refused by name.
final class ProgramTests: XCTestCase {
  private static let constant = #"{"constant": {"path": "k", "dtype": "float32", "shape": [2]}}"#
  private static let encode = stage("encode_prompt", call("text", #"{"t": "tokens/1"}"#, #"{"s": "states"}"#))
  private static let denoise = stage(
    "denoise", call("shared", #"{"x": "scaled_latents"}"#, #"{"y": "shared"}"#),
    call(
      "unet",
      """
      {"x": {"sum": ["latents", "shared"]}, "k": \(constant), "s": {"concat": ["states", "states"], "axis": 1}}
      """, #"{"o": "model_output"}"#))
  private static let decode = stage("decode", call("shared", #"{"x": "decoder_latents"}"#, #"{"y": "decoded"}"#))
  private static let all = [encode, denoise, decode]

  private static func call(_ graph: String, _ inputs: String, _ outputs: String = "{}") -> String {
    #"{"graph": "\#(graph)", "inputs": \#(inputs), "outputs": \#(outputs)}"#
  }

  private static func stage(
    _ name: String, _ calls: String..., when: String = "[]", required: Bool = true
  ) -> String {
    #"{"stage": "\#(name)", "when": \#(when), "required": \#(required), "calls": [\#(calls.joined(separator: ", "))]}"#
  }

  private func tensor(_ name: String, _ shape: String, _ dtype: String = "float32") -> String {
    #"{"name": "\#(name)", "shape": \#(shape), "dtype": "\#(dtype)"}"#
  }

  private func graph(_ name: String, _ inputs: [String], _ output: String) -> String {
    """
    "\(name)": {"path": "g", "files": ["g"], "spec": {"inputs": [\(inputs.joined(separator: ", "))],
    "outputs": [\(output)]}, "storage": "float32", "arithmetic": "float32", "compute_unit": "cpu"}
    """
  }

  private func pipeline(
    _ stages: [String] = all, guidance: String = "classifier_free", absent: String = "zeros",
    draws: String = #"["posterior", "start", "steps"]"#, kind: String = "clip"
  ) throws -> Pipeline {
    let free = #"["b", 2]"#
    let graphs = [
      graph("text", [tensor("t", "[1, 2]", "int32")], tensor("s", "[1, 2]")),
      graph("shared", [tensor("x", free)], tensor("y", free)),
      graph("unet", [tensor("x", free), tensor("s", #"["b", 4]"#), tensor("k", "[2]")], tensor("o", free)),
    ]
    let json = """
      {"latents": {"channels": 1, "height": 1, "width": 2, "scale": 8}, "picture": {"width": 16, "height": 8},
      "vae": {"scaling_factor": 0.5, "shift_factor": 0}, "tokenizers": [{"kind": "\(kind)", "vocab": "v", "merges": "m",
      "characters": "c", "max_length": 2, "bos_id": 0, "eos_id": 1, "pad_id": 1, "unk_id": null, "added_tokens": []}],
      "program": {"guidance": "\(guidance)", "absent_negative": "\(absent)", "draws": \(draws),
      "stages": [\(stages.joined(separator: ", "))]},
      "steps": {"file": "s", "most_steps": 0, "default_sampler": "x", "samplers": {}},
      "defaults": {"steps": 1, "guidance": 1, "strength": 1}, "preview": null,
      "graphs": {\(graphs.joined(separator: ", "))}}
      """
    return try Pipeline(format: "onnx", bytes: Array(json.utf8), path: "test")
  }

  private func assertRefused<Result>(_ what: String, _ work: @autoclosure () throws -> Result, line: UInt = #line) {
    assertThrows(
      try work(), { if case .refusal(let said) = $0 { said.contains(what) } else { false } }, line: line)
  }

  func testWhatIsNotKnownIsRefusedByName() throws {
    let unneeded = [Self.stage("polish", required: false), Self.stage("preview", required: false)]
    _ = try pipeline(Self.all + unneeded)
    assertRefused("perp", try pipeline(guidance: "perp"))
    assertRefused("average", try pipeline(absent: "average"))
    assertRefused("image", try pipeline(draws: #"["image"]"#))
    assertRefused("t5", try pipeline(kind: "t5"))
    assertRefused("polish", try pipeline(Self.all + [Self.stage("polish")]))
    assertRefused("denoise", try pipeline([Self.encode, Self.decode]))
    assertRefused("decode", try pipeline([Self.encode, Self.denoise]))
    assertRefused("depth", try pipeline(Self.all + [Self.stage("denoise", when: #"["depth"]"#)]))
    func with(_ call: String) throws -> Pipeline { try pipeline(Self.all + [Self.stage("preview", call)]) }
    assertRefused("tokens/2", try with(Self.call("text", #"{"t": "tokens/2"}"#)))
    assertRefused("tokens/01", try with(Self.call("text", #"{"t": "tokens/01"}"#)))
    assertRefused("later", try with(Self.call("shared", #"{"x": "later"}"#)))
    assertRefused("nothing", try with(Self.call("nothing", "{}")))
    assertRefused("without its input x", try with(Self.call("shared", "{}")))
    assertRefused("input z", try with(Self.call("shared", #"{"x": "latents", "z": "latents"}"#)))
    assertRefused("output z", try with(Self.call("shared", #"{"x": "latents"}"#, #"{"z": "v"}"#)))
    assertRefused("int32", try with(Self.call("shared", #"{"x": "tokens/1"}"#)))
    assertRefused("float32", try with(Self.call("text", #"{"t": "latents"}"#)))
    assertRefused("int32", try with(Self.call("text", #"{"t": {"sum": ["tokens/1"]}}"#)))
    assertRefused("axis 0", try with(Self.call("shared", #"{"x": {"concat": ["latents", "latents"], "axis": 0}}"#)))
    assertRefused("kind of its own", try with(Self.call("shared", #"{"x": {"product": ["latents"]}}"#)))
    let half = Self.constant.replacingOccurrences(of: "float32", with: "bfloat16")
    assertRefused("bfloat16", try with(Self.call("shared", #"{"x": \#(half)}"#)))
  }

  func testVariantsAreTakenInTheirOrder() throws {
    let simple = Self.call("shared", #"{"x": "latents"}"#, #"{"y": "model_output"}"#)
    let control = Self.stage("denoise", simple, when: #"["control_picture"]"#)
    let program = try pipeline([Self.encode, control, Self.denoise, Self.decode]).program
    let hosts = program.hosts(tokenizers: 1, hasPicture: false)
    XCTAssertEqual(try program.variant("denoise", hosts: hosts)?.calls.count, 2)
    XCTAssertEqual(try program.variant("denoise", hosts: hosts.union(["control_picture"]))?.calls.count, 1)
    XCTAssertNil(try program.variant("encode_image", hosts: hosts))
    assertRefused(
      "control_picture",
      try pipeline([Self.encode, control, Self.decode]).program.variant("denoise", hosts: hosts))
    let taking = Self.stage("decode", Self.call("shared", #"{"x": "control_picture"}"#, #"{"y": "decoded"}"#))
    let stage = try XCTUnwrap(pipeline([Self.encode, Self.denoise, taking]).program.variant("decode", hosts: hosts))
    assertRefused("control_picture", try program.checkGiven([stage], hosts: hosts))
    try program.checkGiven([stage], hosts: hosts.union(["control_picture"]))
  }

  func testHostsDependOnTheKindOfGuidance() throws {
    XCTAssertFalse(try pipeline().program.hosts(tokenizers: 1, hasPicture: false).contains("guidance"))
    XCTAssertTrue(
      try pipeline(guidance: "embedded").program.hosts(tokenizers: 1, hasPicture: false).contains("guidance"))
    let program = try pipeline().program
    let more = program.hosts(tokenizers: 1, hasPicture: true)
    XCTAssertEqual(more.subtracting(program.hosts(tokenizers: 1, hasPicture: false)), ["picture"])
  }

  private final class Made: GraphRunner {
    let make: (Values) -> Values

    init(_ make: @escaping (Values) -> Values) { self.make = make }

    func run(_ inputs: Values, cancellation: Cancellation) throws -> Values { make(inputs) }
  }

  func testBothHalvesInOneCallGiveWhatTwoCallsGive() throws {
    let pipeline = try pipeline()
    var calls: [String] = []
    let shared = Made { inputs in
      guard let x = inputs["x"] else { return [:] }
      calls.append("shared \(x.shape[0])")
      return ["y": Tensor(x.floats.map { 2 * $0 }, shape: x.shape)]
    }
    let unet = Made { inputs in
      guard let x = inputs["x"], let s = inputs["s"]?.floats, let k = inputs["k"]?.floats else { return [:] }
      calls.append("unet \(x.shape[0])")
      let sums = x.floats.enumerated().map { i, value in
        value + s[i / 2 * 4 + i % 2] + s[i / 2 * 4 + 2] + k[i % 2]
      }
      return ["o": Tensor(sums, shape: x.shape)]
    }
    func row(_ values: Float...) -> Tensor { Tensor(values, shape: [1, values.count]) }
    let run = ProgramRun(
      pipeline: pipeline, constants: ["k": Tensor([10, 20] as [Float], shape: [2])],
      graphs: { $0.name == "unet" ? unet : shared }, cancellation: Cancellation())
    let stage = try XCTUnwrap(pipeline.program.variant("denoise", hosts: []))
    let halves = [row(100, 200), row(1000, 2000)].map { states in
      ["latents": row(1, 2), "scaled_latents": row(3, 4), "states": states]
    }
    XCTAssertTrue(pipeline.program.canStack(stage))
    for stacked in [false, true] {
      let made = try run.run(stage, halves: halves, stacked: stacked).map { $0["model_output"]?.floats }
      XCTAssertEqual(made, [[217, 330], [2017, 3030]])
    }
    XCTAssertEqual(calls, ["shared 1", "unet 1", "unet 1", "shared 1", "unet 2"])
    let zeros = try run.zeros(XCTUnwrap(pipeline.program.variant("encode_prompt", hosts: [])))
    XCTAssertEqual(zeros, ["states": row(0, 0)])
  }

  /// A file whose tensors have other names, layouts and types than the pipeline's.
  func testValuesGoIntoTheFilesConventionAndBack() throws {
    let json = """
      {"path": "g", "files": [], "storage": "float16", "arithmetic": "float16", "compute_unit": "ane",
      "spec": {"inputs": [{"name": "x", "shape": [1, 2, 3], "dtype": "float32"}],
      "outputs": [{"name": "y", "shape": ["b", 2], "dtype": "float32"}]},
      "file_spec": {"inputs": [{"name": "in", "shape": [1, 3, 1, 2], "dtype": "float16"}],
      "outputs": [{"name": "out", "shape": [2, "b"], "dtype": "float32"}]},
      "transposes": {"x": [0, 2, 1], "y": [1, 0]}}
      """
    let graph = try PipelineGraph(
      name: "g", file: BundleJSON.decode(PipelineGraph.File.self, from: Array(json.utf8), path: "test"))
    XCTAssertEqual(graph.floor, 58)
    XCTAssertEqual(graph.pictureFloor, 25)
    let convention = FileConvention(graph)
    let x = Tensor([0, 1, 2, 3, 4, 5] as [Float], shape: [1, 2, 3])
    let file = try convention.toFile(["x": x], sizes: convention.sizes(of: ["x": x]))
    XCTAssertEqual(file["in"]?.shape, [1, 3, 1, 2])
    XCTAssertEqual(file["in"]?.converted(to: .float32).floats, [0, 3, 1, 4, 2, 5])
    let out = Tensor([1, 2, 3, 4] as [Float], shape: [2, 2])
    XCTAssertEqual(try convention.fromFile(["out": out], sizes: ["b": 2])["y"]?.floats, [1, 3, 2, 4])
    let broken = Tensor([1, .infinity, 3, 4] as [Float], shape: [2, 2])
    assertThrows(try convention.fromFile(["out": broken], sizes: ["b": 2])) {
      $0 == .notFinite(graph: "g", output: "y")
    }
    for inputs in [[:], ["x": out], ["x": x.converted(to: .int32)]] {
      assertThrows(try convention.sizes(of: inputs)) { if case .engineFailure("g", _) = $0 { true } else { false } }
    }
    assertThrows(try convention.fromFile(["out": x], sizes: ["b": 2])) {
      if case .engineFailure("g", _) = $0 { true } else { false }
    }
  }
}
