import AppModels
import SwiftUI

// Every text for people is a key of Localizable.xcstrings, by AppModels' TextKey.

extension Text {
  init(_ key: TextKey) { self.init(verbatim: Localizer.app.text(key)) }

  init(_ phrase: Phrase) { self.init(verbatim: phrase.text()) }
}

extension Label where Title == Text, Icon == Image {
  init(_ key: TextKey, image: String) {
    self.init {
      Text(key)
    } icon: {
      Image(systemName: image)
    }
  }
}

extension String {
  init(_ key: TextKey) { self = Localizer.app.text(key) }
}
