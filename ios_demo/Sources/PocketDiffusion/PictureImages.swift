#if canImport(ImageIO)
  import CoreGraphics
  import Foundation
  import ImageIO

  extension Picture {
    /// This picture for a view.
    public var image: CGImage? {
      guard let provider = CGDataProvider(data: Data(rgb) as CFData), let space = CGColorSpace(name: CGColorSpace.sRGB)
      else { return nil }
      return CGImage(
        width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 24, bytesPerRow: 3 * width, space: space,
        bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
        shouldInterpolate: false, intent: .defaultIntent)
    }

    /// Reads a photo of any kind that the system knows: upright, in sRGB, over white, at most `longest` pixels on a side.
    /// Throws `badRequest`.
    public init(photo data: Data, longest: Int = 4096) throws {
      let options =
        [
          kCGImageSourceCreateThumbnailFromImageAlways: true, kCGImageSourceCreateThumbnailWithTransform: true,
          kCGImageSourceThumbnailMaxPixelSize: longest,
        ] as CFDictionary
      guard let source = CGImageSourceCreateWithData(data as CFData, nil),
        let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options),
        let space = CGColorSpace(name: CGColorSpace.sRGB)
      else { throw EngineError.badRequest(why: "This file is no picture that can be read here.") }
      let (width, height) = (image.width, image.height)
      var rgbx = [UInt8](repeating: 255, count: 4 * width * height)
      let isDrawn = rgbx.withUnsafeMutableBytes { bytes in
        let context = CGContext(
          data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
          space: space, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        context?.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
        return context != nil
      }
      if !isDrawn { throw EngineError.badRequest(why: "This picture is too large to be read here.") }
      self.init(width: width, height: height, rgb: (0..<3 * width * height).map { rgbx[$0 / 3 * 4 + $0 % 3] })
    }
  }
#endif
