// A stand-in for type-checking on Linux: see README.md.
public struct UTType: Hashable, Sendable {
  public static var folder: UTType { fatalError() }
  public static var zip: UTType { fatalError() }
}
