import AppModels
import PocketDiffusion
import SwiftUI

/// Is it the same model? The original's picture beside the phone's own, and each graph on each unit.
struct SameModelView: View {
  let studio: Studio
  @Environment(\.dynamicTypeSize) private var typeSize

  var body: some View {
    Form {
      ProblemSection(studio: studio)
      if let work = studio.work {
        WorkSection(work: work) { studio.cancel() }
      }
      Section {
        Text(key: .testIntro)
        Button {
          studio.test()
        } label: {
          Label(key: studio.tested == nil ? .testRun : .testAgain, symbol: "checkmark.seal")
        }
        .disabled(!studio.canDrawAnything)
      }
      if let tested = studio.tested { results(tested) }
    }
    .navigationTitle(Text(key: .sameModel))
  }

  @ViewBuilder private func results(_ tested: Tested) -> some View {
    Section {
      Label {
        Text(tested.verdict)
          .font(.headline)
      } icon: {
        Image(systemName: tested.report.passed ? "checkmark.seal" : "xmark.seal")
      }
      Text(tested.verdictText)
      if let unused = tested.unusedUnits {
        Text(unused)
          .font(.footnote)
      }
      pictures(tested)
      Text(tested.distance)
      if let decibels = tested.decibels { Text(decibels) }
      Text(tested.comparison)
        .font(.footnote)
      ForEach(tested.controls) { control in
        LabeledContent {
          Text(control.distance)
        } label: {
          Text(control.title)
        }
        .font(.footnote)
      }
    }
    Section {
      ForEach(tested.report.graphs) { result in
        VStack(alignment: .leading) {
          Label {
            Text(result.title)
          } icon: {
            Image(systemName: result.passed ? "checkmark.circle" : "xmark.circle")
              .accessibilityLabel(Text(key: result.passed ? .passed : .failed))
          }
          Text(result.text)
            .font(.footnote)
          if let time = result.time {
            Text(time)
              .font(.footnote)
              .foregroundStyle(.secondary)
          }
        }
        .accessibilityElement(children: .combine)
      }
    } header: {
      Text(key: .graphs)
    } footer: {
      Text(key: .graphsText)
    }
    Section {
      Text(tested.vectors)
      ShareLink(item: tested.file) { Label(key: .shareReport, symbol: "square.and.arrow.up") }
    } header: {
      Text(key: .vectors)
    }
  }

  /// Beside each other, and below each other where text is large.
  private func pictures(_ tested: Tested) -> some View {
    let layout = typeSize.isAccessibilitySize ? AnyLayout(VStackLayout()) : AnyLayout(HStackLayout(alignment: .top))
    return layout { both(tested) }
  }

  @ViewBuilder private func both(_ tested: Tested) -> some View {
    if let original = tested.original {
      VStack {
        PictureView(picture: original, label: Text(key: .original))
        Text(key: .original)
          .font(.caption)
      }
    }
    if let own = tested.report.drawn {
      VStack {
        PictureView(picture: own, label: Text(key: .thisPhone))
        Text(key: .thisPhone)
          .font(.caption)
      }
    }
  }
}
