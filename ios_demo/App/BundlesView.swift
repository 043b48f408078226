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
        if studio.bundles.isEmpty { Text(.bundlesNone) }
        ForEach(studio.bundles) { bundle in
          BundleRow(studio: studio, bundle: bundle)
        }
      }
      Section {
        Button { isPicking = true } label: { Label(.pick, image: "folder") }
      } header: {
        Text(.addBundle)
      } footer: {
        Text(.pickText)
      }
      Section {
        TextField(String(.addressHint), text: $studio.settings.address)
          .keyboardType(.URL)
          .textInputAutocapitalization(.never)
          .autocorrectionDisabled()
          .accessibilityLabel(Text(.address))
        Button { studio.download() } label: { Label(studio.downloadKey, image: "arrow.down.circle") }
      } header: {
        Text(.address)
      } footer: {
        if let broken = studio.brokenDownloadText { Text(broken) }
      }
    }
    .navigationTitle(Text(.bundles))
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

  var body: some View {
    VStack(alignment: .leading, spacing: 6) {
      HStack {
        Text(verbatim: bundle.place.name)
          .font(.headline)
        Spacer()
        if studio.opened?.place == bundle.place {
          Image(systemName: "checkmark.circle.fill")
            .accessibilityLabel(Text(.chosen))
        }
      }
      Text(bundle.text)
        .font(.footnote)
        .foregroundStyle(.secondary)
      if let problem = bundle.problem {
        MessageView(message: problem)
      } else if studio.opened?.place != bundle.place {
        Button { studio.open(bundle.place) } label: { Text(.use) }
          .disabled(studio.work != nil)
          .accessibilityLabel(Text(Phrase(.useLabel, .text(bundle.place.name))))
      }
    }
    .swipeActions {
      if bundle.place.isRemovable {
        Button(role: .destructive) {
          Task { await studio.delete(bundle.place) }
        } label: {
          Label(bundle.place.origin == .picked ? .forget : .delete, image: "trash")
        }
      }
    }
  }
}
