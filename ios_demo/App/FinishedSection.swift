import AppModels
import SwiftUI

/// The last picture, how it was made, and where it can go.
struct FinishedSection: View {
  let studio: Studio
  let finished: Finished
  @State private var isSaved = false

  var body: some View {
    Section {
      PictureView(picture: finished.picture, label: Text(Phrase(.pictureOf, .text(finished.prompt))))
      if let made = finished.made {
        Text(made)
          .font(.footnote)
          .foregroundStyle(.secondary)
      }
      ForEach(finished.notes.indices, id: \.self) { index in
        Label {
          Text(finished.notes[index])
            .font(.footnote)
        } icon: {
          Image(systemName: "info.circle")
        }
      }
      Button {
        Task { await save() }
      } label: {
        Label(key: isSaved ? .saved : .save, symbol: isSaved ? "checkmark" : "square.and.arrow.down")
      }
      .disabled(isSaved)
      if finished.isKept {
        ShareLink(item: finished.file) { Label(key: .share, symbol: "square.and.arrow.up") }
      }
      if let seed = finished.facts["seed"] {
        Button {
          studio.useSeed(seed)
        } label: {
          Text(Phrase(.useSeed, .text(seed)))
        }
      }
    } header: {
      Text(verbatim: finished.prompt)
        .textCase(nil)
    }
    .onChange(of: finished.file) { _, _ in isSaved = false }
  }

  private func save() async {
    do {
      try studio.keepFinished()
      try await PhotoLibrary.save(finished.file)
      isSaved = true
    } catch {
      studio.show(error)
    }
  }
}
