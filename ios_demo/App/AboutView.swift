import AppModels
import SwiftUI

/// The app, and whose model it draws with.
struct AboutView: View {
  let studio: Studio

  var body: some View {
    Form {
      Section {
        Text(key: .aboutText)
        LabeledContent {
          Text(verbatim: studio.phone.device.app.version)
        } label: {
          Text(key: .version)
        }
      } header: {
        Text(key: .appName)
      }
      if let opened = studio.opened {
        Section {
          if let attribution = opened.bundle.manifest.model.attribution { Text(verbatim: attribution) }
          Text(Phrase(.licence, .text(opened.bundle.manifest.model.licence)))
          if let address = opened.bundle.manifest.model.licenceUrl.flatMap({ URL(string: $0) }) {
            Link(destination: address) { Text(verbatim: address.absoluteString) }
          }
          ForEach(opened.bundle.manifest.model.licenceFiles ?? [], id: \.self) { path in
            NavigationLink {
              LicenceView(title: path, text: (try? opened.bundle.text(path)) ?? "")
            } label: {
              Text(verbatim: path)
            }
          }
        } header: {
          Text(verbatim: opened.name)
        }
      }
    }
    .navigationTitle(Text(key: .credits))
  }
}

private struct LicenceView: View {
  let title: String
  let text: String

  var body: some View {
    ScrollView {
      Text(verbatim: text)
        .font(.footnote)
        .textSelection(.enabled)
        .padding()
    }
    .navigationTitle(Text(verbatim: title))
  }
}
