import AppModels
import PhotosUI
import SwiftUI

/// A photo to start from, and how much of it is drawn anew.
struct PhotoSection: View {
  @Bindable var studio: Studio
  let opened: Opened
  @State private var item: PhotosPickerItem?

  var body: some View {
    Section {
      if let photo = studio.photo {
        PictureView(picture: photo, label: Text(key: .photoChosen))
        VStack(alignment: .leading) {
          LabeledContent {
            Text(verbatim: studio.strength(opened).formatted(.percent))
          } label: {
            Text(key: .strength)
          }
          Slider(value: $studio.settings.strength.or(opened.pipeline.defaults.strength), in: 0.05...1, step: 0.05)
            .accessibilityLabel(Text(key: .strength))
        }
        Button(role: .destructive) {
          Task { await studio.usePhoto(nil) }
        } label: {
          Text(key: .photoRemove)
        }
      }
      PhotosPicker(selection: $item, matching: .images) { Label(key: .photoChoose, symbol: "photo") }
    } header: {
      Text(key: .photo)
    } footer: {
      Text(key: .photoText)
    }
    .onChange(of: item) { _, item in
      guard let item else { return }
      Task {
        do {
          await studio.usePhoto(try await item.loadTransferable(type: Data.self))
        } catch {
          studio.show(AppError.photoUnreadable)
        }
        self.item = nil
      }
    }
  }
}

extension Binding where Value: Sendable {
  /// A choice that is nil until it is made, shown as what the bundle says.
  @MainActor func or<Chosen: Sendable>(_ told: Chosen) -> Binding<Chosen> where Value == Chosen? {
    Binding<Chosen> {
      wrappedValue ?? told
    } set: {
      wrappedValue = $0
    }
  }
}
