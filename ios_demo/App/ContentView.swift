import AppModels
import SwiftUI

/// The four screens.
struct ContentView: View {
  @Bindable var studio: Studio

  var body: some View {
    TabView {
      NavigationStack { DrawView(studio: studio) }
        .tabItem { Label(.draw, image: "paintbrush") }
      NavigationStack { BundlesView(studio: studio) }
        .tabItem { Label(.bundles, image: "shippingbox") }
      NavigationStack { SameModelView(studio: studio) }
        .tabItem { Label(.tabSame, image: "equal.circle") }
      NavigationStack { AboutView(studio: studio) }
        .tabItem { Label(.credits, image: "info.circle") }
    }
  }
}
