import Foundation
import PocketDiffusion

#if canImport(ImageIO)
  import CoreGraphics
  import ImageIO
#endif

/// The photo to start from. Its file is kept as it was picked, so that the next start has it.
struct Photo {
  private let file: URL

  init(folder: URL) { file = folder.appendingPathComponent("photo") }

  var isThere: Bool { FileManager.default.fileExists(atPath: file.path) }

  func keep(_ data: Data) throws { try data.write(to: file, options: .atomic) }

  func read() throws -> Data {
    guard let data = try? Data(contentsOf: file) else { throw AppError.photoUnreadable }
    return data
  }

  func remove() { try? FileManager.default.removeItem(at: file) }

  /// A photo is read with at most so many times the pixels of the bundle's longer side, since a part of it is cut off.
  static let spare = 4

  /// Cuts the middle out of a picture, in the proportions of `width` to `height`.
  static func cut(_ picture: Picture, width: Int, height: Int) -> Picture {
    let scale = min(Double(picture.width) / Double(width), Double(picture.height) / Double(height))
    let (w, h) = (max(Int(Double(width) * scale), 1), max(Int(Double(height) * scale), 1))
    let (x, y) = ((picture.width - w) / 2, (picture.height - h) / 2)
    if w == picture.width && h == picture.height { return picture }
    var rgb: [UInt8] = []
    rgb.reserveCapacity(w * h * 3)
    for row in y..<y + h {
      let first = (row * picture.width + x) * 3
      rgb += picture.rgb[first..<first + w * 3]
    }
    return Picture(width: w, height: h, rgb: rgb)
  }

  #if canImport(ImageIO)
    /// Reads what the system can read, turned upright as EXIF says, with at most `mostPixels` along the longer side.
    @Sendable static func decode(_ data: Data, mostPixels: Int) throws -> Picture {
      let options =
        [
          kCGImageSourceCreateThumbnailFromImageAlways: true, kCGImageSourceCreateThumbnailWithTransform: true,
          kCGImageSourceThumbnailMaxPixelSize: mostPixels,
        ] as [CFString: Any] as CFDictionary
      guard let source = CGImageSourceCreateWithData(data as CFData, nil),
        let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options),
        let space = CGColorSpace(name: CGColorSpace.sRGB)
      else { throw AppError.photoUnreadable }
      let (width, height) = (image.width, image.height)
      var rgba = [UInt8](repeating: 255, count: width * height * 4)  // white, on which the photo is laid
      let isDrawn = rgba.withUnsafeMutableBytes { bytes in
        guard
          let context = CGContext(
            data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: width * 4,
            space: space, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        else { return false }
        context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
        return true
      }
      guard isDrawn else { throw AppError.photoUnreadable }
      let rgb = [UInt8](unsafeUninitializedCapacity: width * height * 3) { bytes, count in
        for pixel in 0..<width * height {
          for channel in 0..<3 { bytes[pixel * 3 + channel] = rgba[pixel * 4 + channel] }
        }
        count = width * height * 3
      }
      return Picture(width: width, height: height, rgb: rgb)
    }
  #else
    @Sendable static func decode(_ data: Data, mostPixels: Int) throws -> Picture {
      guard let picture = try? PNG.read(Array(data), place: "photo") else { throw AppError.photoUnreadable }
      return picture
    }
  #endif
}
