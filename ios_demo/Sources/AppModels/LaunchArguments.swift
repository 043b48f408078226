/// What the app is to do without a hand: `--draw` or `--self-test`, and how.
public struct LaunchArguments: Equatable, Sendable {
  public enum Task: Equatable, Sendable {
    case draw(Wish)
    case selfTest
  }

  public let task: Task
  /// The name of a bundle on the phone; nil: the one that was drawn with last, or the first that is whole.
  public private(set) var bundle: String?
  /// What the files are called that are written into the app's documents: NAME.json, and NAME.png for a picture.
  public private(set) var out = "result"

  static let draw = "--draw"
  static let selfTest = "--self-test"
  private static let named: Set = [
    "--prompt", "--negative-prompt", "--seed", "--steps", "--guidance", "--sampler", "--strength", "--unit", "--bundle",
    "--out",
  ]
  private static let flags: Set = [draw, selfTest, "--least-memory"]

  /// Reads the arguments behind the program's name. What Xcode adds of its own, such as -NSDocumentRevisionsDebugMode
  /// YES, begins with one `-`, and is passed over with its value. Throws `AppError.badArguments`.
  public init(_ arguments: [String]) throws {
    func fail(_ why: String) -> AppError { .badArguments(why: why) }
    var values: [String: String] = [:]
    var flags: Set<String> = []
    var rest = arguments[...]
    while let name = rest.popFirst() {
      if Self.flags.contains(name) {
        flags.insert(name)
      } else if name.hasPrefix("--") {
        guard Self.named.contains(name) else { throw fail("there is no argument \(name)") }
        guard let value = rest.popFirst() else { throw fail("\(name) has no value") }
        values[name] = value
      } else if name.hasPrefix("-") {
        _ = rest.popFirst()
      } else {
        throw fail("\(name) is not an argument")
      }
    }
    func number<Number>(_ name: String, _ read: (String) -> Number?) throws -> Number? {
      guard let text = values[name] else { return nil }
      guard let number = read(text) else { throw fail("\(name) \(text) is not a number") }
      return number
    }
    bundle = values["--bundle"]
    out = values["--out"] ?? out
    guard !out.contains("/"), !out.hasPrefix(".") else { throw fail("--out \(out) is not a file name") }
    if flags.contains(Self.draw) == flags.contains(Self.selfTest) {
      throw fail("give one of \(Self.draw) and \(Self.selfTest)")
    }
    if flags.contains(Self.selfTest) {
      let others = values.keys.filter { !["--bundle", "--out"].contains($0) }.sorted()
      if let other = others.first { throw fail("\(Self.selfTest) takes no \(other)") }
      task = .selfTest
      return
    }
    guard let prompt = values["--prompt"] else { throw fail("\(Self.draw) needs --prompt") }
    var wish = Wish(prompt: prompt, seed: values["--seed"] ?? "1")
    wish.negativePrompt = values["--negative-prompt"]
    wish.steps = try number("--steps") { Int($0) }
    wish.guidance = try number("--guidance") { Double($0) }
    wish.sampler = values["--sampler"]
    wish.strength = try number("--strength") { Double($0) }
    wish.fromPhoto = wish.strength != nil
    wish.unit = values["--unit"]
    wish.leastMemory = flags.contains("--least-memory")
    task = .draw(wish)
  }
}
