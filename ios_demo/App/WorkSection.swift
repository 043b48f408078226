import AppModels
import SwiftUI

/// What is done now: how far it is, a preview, and the way to stop it.
struct WorkSection: View {
  let work: Work
  let cancel: @MainActor () -> Void

  var body: some View {
    Section {
      if let preview = work.preview {
        PictureView(picture: preview, label: Text(key: .preview), isRough: true)
      }
      VStack(alignment: .leading) {
        if let fraction = work.fraction {
          ProgressView(value: fraction) { Text(work.title) }
        } else {
          ProgressView { Text(work.title) }
        }
        if let text = work.text {
          Text(text)
            .font(.footnote)
            .foregroundStyle(.secondary)
        }
      }
      .accessibilityElement(children: .combine)
      .accessibilityAddTraits(.updatesFrequently)
      Button(role: .cancel, action: cancel) { Text(key: .cancel) }
    }
  }
}
