#if canImport(CoreGraphics)
  import CoreGraphics
  import Foundation
  import PocketDiffusion

  extension Picture {
    /// For the screen; nil where there is no memory for it.
    public var cgImage: CGImage? {
      guard let data = CGDataProvider(data: Data(rgb) as CFData), let space = CGColorSpace(name: CGColorSpace.sRGB)
      else { return nil }
      return CGImage(
        width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 24, bytesPerRow: width * 3, space: space,
        bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: data, decode: nil,
        shouldInterpolate: true, intent: .defaultIntent)
    }
  }
#endif
