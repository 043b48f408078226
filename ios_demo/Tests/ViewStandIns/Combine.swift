// A stand-in for type-checking on Linux: see README.md.
public protocol Publisher<Output, Failure> {
  associatedtype Output
  associatedtype Failure: Error
}
