import Foundation

/// A text for people: a key of the String Catalog, and what stands in its places `%1$@`, `%2$@`, ...
public struct Phrase: Equatable, Sendable {
  public enum Value: Equatable, Sendable {
    /// A name, a number that is already written for people, or somebody's own words.
    case text(String)
    case phrase(Phrase)
  }

  public let key: TextKey
  public let values: [Value]

  public init(_ key: TextKey, _ values: Value...) { self.init(key, values) }

  init(_ key: TextKey, _ values: [Value]) {
    self.key = key
    self.values = values
  }

  /// Several phrases in a row.
  static func list(_ phrases: [Phrase]) -> Phrase {
    phrases.dropFirst().reduce(phrases[0]) { Phrase(.separator, .phrase($0), .phrase($1)) }
  }

  /// In the language of `localizer`.
  public func text(_ localizer: Localizer = .app) -> String {
    let filled = values.map { value in
      switch value {
      case .text(let text): text
      case .phrase(let phrase): phrase.text(localizer)
      }
    }
    return Self.fill(localizer.lookUp(key.rawValue), filled)
  }

  /// Puts values in their places; what stands in a value is left as it is.
  static func fill(_ pattern: String, _ values: [String]) -> String {
    var made = ""
    var rest = pattern[...]
    while let place = rest.range(of: "%[0-9]+\\$@", options: .regularExpression) {
      made += rest[..<place.lowerBound]
      let number = Int(rest[place].dropFirst().dropLast(2)) ?? 0
      made += values.indices.contains(number - 1) ? values[number - 1] : String(rest[place])
      rest = rest[place.upperBound...]
    }
    return made + rest
  }
}

/// Where the texts of a language come from.
public struct Localizer: Sendable {
  let lookUp: @Sendable (String) -> String

  public init(lookUp: @escaping @Sendable (String) -> String) { self.lookUp = lookUp }

  /// The app's String Catalog, in the language that the person chose for the app.
  public static let app = Localizer { Bundle.main.localizedString(forKey: $0, value: nil, table: nil) }

  public func text(_ key: TextKey) -> String { lookUp(key.rawValue) }
}
