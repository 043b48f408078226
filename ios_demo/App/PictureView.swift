import AppModels
import PocketDiffusion
import SwiftUI

/// A picture as wide as there is room, in its own proportions.
struct PictureView: View {
  let picture: Picture
  /// What VoiceOver says.
  let label: Text
  /// Whether its pixels are to flow together.
  var isRough = false

  var body: some View {
    if let image = picture.cgImage {
      Image(image, scale: 1, label: label)
        .resizable()
        .interpolation(isRough ? .medium : .none)
        .aspectRatio(CGFloat(picture.width) / CGFloat(picture.height), contentMode: .fit)
        .frame(maxWidth: .infinity)
    }
  }
}
