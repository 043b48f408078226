import AppModels
import SwiftUI

// Every text for people is a key of Localizable.xcstrings, by AppModels' TextKey.

extension Text {
  init(key: TextKey) { self.init(verbatim: Localizer.app.text(key)) }

  init(_ phrase: Phrase) { self.init(verbatim: phrase.text()) }
}

extension Label where Title == Text, Icon == Image {
  init(key: TextKey, symbol: String) {
    self.init {
      Text(key: key)
    } icon: {
      Image(systemName: symbol)
    }
  }
}

extension String {
  init(key: TextKey) { self = Localizer.app.text(key) }
}
