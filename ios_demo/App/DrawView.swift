import AppModels
import SwiftUI

/// What to draw, and what was drawn.
struct DrawView: View {
  @Bindable var studio: Studio
  @FocusState private var isWriting: Bool

  var body: some View {
    Form {
      ProblemSection(studio: studio)
      if let wish = studio.interrupted { InterruptedSection(studio: studio, wish: wish) }
      if let work = studio.work {
        WorkSection(work: work) { studio.cancel() }
      } else if let finished = studio.finished {
        FinishedSection(studio: studio, finished: finished)
      } else if studio.opened != nil {
        Text(key: .empty)
      }
      if let opened = studio.opened {
        promptSection(opened)
        if opened.pipeline.takesPicture { PhotoSection(studio: studio, opened: opened) }
        ChoicesSection(studio: studio, opened: opened)
        PhoneSection(studio: studio, opened: opened)
      } else if studio.work == nil {
        Section {
          Text(key: .emptyNoBundle)
        } header: {
          Text(key: .noBundle)
        }
      }
    }
    .navigationTitle(Text(key: .appName))
    .scrollDismissesKeyboard(.interactively)
    .toolbar {
      ToolbarItem(placement: .confirmationAction) {
        Button {
          isWriting = false
          studio.draw()
        } label: {
          Text(key: .draw)
        }
        .disabled(!studio.canDraw)
      }
    }
  }

  private func promptSection(_ opened: Opened) -> some View {
    Section {
      TextField(String(key: .promptHint), text: $studio.settings.prompt, axis: .vertical)
        .focused($isWriting)
        .accessibilityLabel(Text(key: .prompt))
      if opened.pipeline.takesNegativePrompt {
        LabeledContent {
          TextField(String(key: .negativeHint), text: $studio.settings.negativePrompt, axis: .vertical)
            .focused($isWriting)
            .accessibilityLabel(Text(key: .negative))
        } label: {
          Text(key: .negative)
        }
      }
    } header: {
      Text(key: .prompt)
    }
  }
}

/// What the system ended in the midst.
private struct InterruptedSection: View {
  let studio: Studio
  let wish: Wish

  var body: some View {
    Section {
      if !wish.prompt.isEmpty { Text(verbatim: wish.prompt) }
      Button {
        studio.drawInterrupted()
      } label: {
        Text(key: .drawAgainLess)
      }
      .disabled(!studio.canDraw)
      Button(role: .cancel) {
        studio.dismiss()
      } label: {
        Text(key: .close)
      }
    } header: {
      Text(key: .interrupted)
    }
  }
}
