import AppModels
import SwiftUI
import UniformTypeIdentifiers

/// The bundles on this phone, and the ways to get one.
struct BundlesView: View {
  @Bindable var studio: Studio
  @State private var isPicking = false

  var body: some View {
    Form {
      ProblemSection(studio: studio)
      if let work = studio.work {
        WorkSection(work: work) { studio.cancel() }
      }
      Section {
        if studio.bundles.isEmpty { Text(key: .bundlesNone) }
        ForEach(studio.bundles) { bundle in
          BundleRow(studio: studio, bundle: bundle)
        }
      }
      Section {
        Button {
          isPicking = true
        } label: {
          Label(key: .pick, symbol: "folder")
        }
        .disabled(studio.work != nil)
      } header: {
        Text(key: .addBundle)
      } footer: {
        Text(key: .pickText)
      }
      Section {
        TextField(String(key: .addressHint), text: $studio.settings.address)
          .keyboardType(.URL)
          .textInputAutocapitalization(.never)
          .autocorrectionDisabled()
          .accessibilityLabel(Text(key: .address))
        Button {
          studio.download()
        } label: {
          Label(key: studio.downloadKey, symbol: "arrow.down.circle")
        }
        .disabled(studio.work != nil)
      } header: {
        Text(key: .address)
      } footer: {
        if let broken = studio.brokenDownloadText { Text(broken) }
      }
    }
    .navigationTitle(Text(key: .bundles))
    .refreshable { await studio.look() }
    .fileImporter(isPresented: $isPicking, allowedContentTypes: [.folder, .zip]) { result in
      switch result {
      case .success(let url): studio.pick(url)
      case .failure(let error): studio.show(error)
      }
    }
  }
}

/// One bundle: its name, its size, and what is wrong with it.
private struct BundleRow: View {
  let studio: Studio
  let bundle: Inspected
  @State private var isAsking = false

  var body: some View {
    VStack(alignment: .leading, spacing: 6) {
      HStack {
        Text(verbatim: bundle.place.name)
          .font(.headline)
        Spacer()
        if studio.opened?.place.id == bundle.id {
          Image(systemName: "checkmark.circle.fill")
            .accessibilityLabel(Text(key: .chosen))
        }
      }
      Text(bundle.text)
        .font(.footnote)
        .foregroundStyle(.secondary)
      if let problem = bundle.problem {
        MessageView(message: problem)
      } else if studio.opened?.place.id != bundle.id {
        Button {
          studio.open(bundle.place)
        } label: {
          Text(key: .use)
        }
        .disabled(studio.work != nil)
        .accessibilityLabel(Text(Phrase(.useLabel, .text(bundle.place.name))))
      }
    }
    .swipeActions {
      if bundle.place.isRemovable {
        Button {
          isAsking = true
        } label: {
          Label(key: deleteKey, symbol: "trash")
        }
        .tint(.red)
        .disabled(studio.work != nil)
      }
    }
    .confirmationDialog(question, isPresented: $isAsking, titleVisibility: .visible) {
      Button(role: .destructive) {
        Task { await studio.delete(bundle.place) }
      } label: {
        Text(key: deleteKey)
      }
      Button(role: .cancel) {
      } label: {
        Text(key: .cancel)
      }
    }
  }

  private var deleteKey: TextKey { bundle.place.origin == .picked ? .forget : .delete }

  private var question: Text {
    let key: TextKey = bundle.place.origin == .picked ? .forgetQuestion : .deleteQuestion
    return Text(Phrase(key, .text(bundle.place.name)))
  }
}
