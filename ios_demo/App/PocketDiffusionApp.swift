import AppModels
import PocketDiffusion
import SwiftUI

/// The app. With launch arguments it does its work without a hand, and ends: see README.md.
@main struct PocketDiffusionApp: App {
  @State private var studio = Surroundings.makeStudio()
  @Environment(\.scenePhase) private var phase

  var body: some Scene {
    WindowGroup {
      ContentView(studio: studio)
        .task { await Surroundings.begin(studio) }
        .onReceive(Surroundings.memoryWarnings) { _ in
          Task { await studio.freeMemory() }
        }
    }
    .onChange(of: phase) { _, phase in
      switch phase {
      case .background: Surroundings.backgroundTime.keepAlive(studio)
      case .active:
        Surroundings.backgroundTime.giveBackAll()
        studio.enterForeground()
      default: break
      }
    }
    .backgroundTask(.urlSession(BackgroundDownload.identifier)) {
      await studio.followRunningDownload()
      await studio.idle()
    }
  }
}
