import AppModels
import SwiftUI

/// Where graphs run, the memory that a drawing takes and the phone has, and how warm the phone is.
struct PhoneSection: View {
  @Bindable var studio: Studio
  let opened: Opened

  var body: some View {
    Section {
      Picker(selection: $studio.settings.unit) {
        Text(key: .unitDefault).tag(String?.none)
        ForEach(studio.units(opened), id: \.self) { Text(Message.unit($0)).tag(String?.some($0)) }
      } label: {
        Text(key: .unit)
      }
      ForEach(studio.unitNotes(opened).indices, id: \.self) { index in
        Text(studio.unitNotes(opened)[index])
          .font(.footnote)
      }
      ForEach(studio.notices(opened).indices, id: \.self) { index in
        Text(studio.notices(opened)[index])
          .font(.footnote)
      }
      Toggle(isOn: $studio.settings.leastMemory) { Text(key: .leastMemory) }
      TimelineView(.periodic(from: .now, by: 2)) { _ in
        VStack(alignment: .leading, spacing: 6) {
          if let memory = studio.memory(opened) { Text(memory) }
          Text(studio.phone.heat().phrase)
          if studio.phone.isSavingPower() { Text(key: .savingPower) }
        }
        .font(.footnote)
      }
    } header: {
      Text(key: .phone)
    }
  }
}
