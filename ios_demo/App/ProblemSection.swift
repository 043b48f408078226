import AppModels
import SwiftUI

/// What went wrong last, if anything did.
struct ProblemSection: View {
  let studio: Studio

  var body: some View {
    if let problem = studio.problem {
      Section {
        MessageView(message: problem)
        Button {
          studio.dismiss()
        } label: {
          Text(key: .close)
        }
      }
    }
  }
}

/// An error: what is wrong, what to do, each file by name, and the engine's own words.
struct MessageView: View {
  let message: Message

  var body: some View {
    VStack(alignment: .leading, spacing: 6) {
      Label {
        Text(message.title)
          .font(.headline)
      } icon: {
        Image(systemName: "exclamationmark.triangle")
          .foregroundStyle(.orange)
      }
      Text(message.text)
      ForEach(message.files.indices, id: \.self) { index in
        Text(message.files[index])
          .font(.footnote)
      }
      if let detail = message.detail {
        Text(verbatim: detail)
          .font(.footnote)
          .foregroundStyle(.secondary)
          .textSelection(.enabled)
      }
    }
    .accessibilityElement(children: .combine)
  }
}
