import AppModels
import SwiftUI
import UIKit

/// The four screens.
struct ContentView: View {
  @Bindable var studio: Studio

  var body: some View {
    TabView {
      NavigationStack { DrawView(studio: studio) }
        .tabItem { Label(key: .draw, symbol: "paintbrush") }
      NavigationStack { BundlesView(studio: studio) }
        .tabItem { Label(key: .bundles, symbol: "shippingbox") }
      NavigationStack { SameModelView(studio: studio) }
        .tabItem { Label(key: .tabSame, symbol: "equal.circle") }
      NavigationStack { AboutView(studio: studio) }
        .tabItem { Label(key: .credits, symbol: "info.circle") }
    }
    .onChange(of: studio.work == nil) { _, isIdle in
      UIApplication.shared.isIdleTimerDisabled = !isIdle  // a phone that sleeps stops what it does
    }
  }
}
