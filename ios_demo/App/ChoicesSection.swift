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
        Text(key: .sampler)
      }
      VStack(alignment: .leading) {
        LabeledContent {
          Text(verbatim: studio.steps(opened).formatted())
        } label: {
          Text(key: .steps)
        }
        Slider(
          value: $studio.settings.steps.asSlider(opened.pipeline.defaults.steps), in: studio.stepRange(opened), step: 1
        )
        .accessibilityLabel(Text(key: .steps))
      }
      if opened.pipeline.takesGuidance {
        VStack(alignment: .leading) {
          LabeledContent {
            Text(studio.guidanceText(opened))
          } label: {
            Text(key: .guidance)
          }
          Slider(value: $studio.settings.guidance.or(opened.pipeline.defaults.guidance), in: 1...20, step: 0.5)
            .accessibilityLabel(Text(key: .guidance))
        }
      }
      Button {
        studio.useDefaults()
      } label: {
        Text(key: .defaults)
      }
    } header: {
      Text(key: .choices)
    }
  }

  @ViewBuilder private var seed: some View {
    HStack {
      TextField(String(key: .seed), text: $studio.settings.seed)
        .keyboardType(.numbersAndPunctuation)
        .accessibilityLabel(Text(key: .seed))
      Button {
        studio.settings.newSeed()
      } label: {
        Label(key: .newSeed, symbol: "dice")
      }
      .labelStyle(.iconOnly)
    }
    if !studio.settings.isSeedGood {
      Text(key: .seedWrong)
        .font(.footnote)
        .foregroundStyle(.red)
    }
    Toggle(isOn: $studio.settings.keepsSeed) { Text(key: .keepSeed) }
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
