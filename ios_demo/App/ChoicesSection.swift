import AppModels
import SwiftUI

/// Seed, steps, sampler and guidance.
struct ChoicesSection: View {
  @Bindable var studio: Studio
  let opened: Opened

  var body: some View {
    Section {
      seed
      Picker(selection: $studio.settings.sampler.or(opened.pipeline.steps.defaultSampler)) {
        ForEach(opened.samplers, id: \.self) { Text(verbatim: $0) }
      } label: {
        Text(.sampler)
      }
      VStack(alignment: .leading) {
        LabeledContent {
          Text(verbatim: studio.steps(opened).formatted())
        } label: {
          Text(.steps)
        }
        Slider(value: $studio.settings.steps.asSlider(opened.pipeline.defaults.steps), in: studio.stepRange(opened), step: 1)
          .accessibilityLabel(Text(.steps))
      }
      if opened.pipeline.takesGuidance {
        VStack(alignment: .leading) {
          LabeledContent {
            Text(studio.guidanceText(opened))
          } label: {
            Text(.guidance)
          }
          Slider(value: $studio.settings.guidance.or(opened.pipeline.defaults.guidance), in: 1...20, step: 0.5)
            .accessibilityLabel(Text(.guidance))
        }
      }
      Button { studio.useDefaults() } label: { Text(.defaults) }
    } header: {
      Text(.choices)
    }
  }

  @ViewBuilder private var seed: some View {
    HStack {
      TextField(String(.seed), text: $studio.settings.seed)
        .keyboardType(.numbersAndPunctuation)
        .accessibilityLabel(Text(.seed))
      Button { studio.settings.newSeed() } label: { Label(.newSeed, image: "dice") }
        .labelStyle(.iconOnly)
    }
    if !studio.settings.isSeedGood {
      Text(.seedWrong)
        .font(.footnote)
        .foregroundStyle(.red)
    }
    Toggle(isOn: $studio.settings.keepsSeed) { Text(.keepSeed) }
  }
}

extension Binding where Value == Int? {
  @MainActor fileprivate func asSlider(_ told: Int) -> Binding<Double> {
    Binding<Double> {
      Double(wrappedValue ?? told)
    } set: {
      wrappedValue = Int($0.rounded())
    }
  }
}
