// A stand-in for type-checking on Linux: see README.md.
@_exported import Foundation

public final class CGImage: @unchecked Sendable {
  public var width: Int { fatalError() }
  public var height: Int { fatalError() }
  public init?(
    width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int, space: CGColorSpace,
    bitmapInfo: CGBitmapInfo, provider: CGDataProvider, decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool,
    intent: CGColorRenderingIntent
  ) { fatalError() }
}

public final class CGColorSpace {
  public static var sRGB: CFString { fatalError() }
  public init?(name: CFString) { fatalError() }
}

public enum CGColorRenderingIntent { case defaultIntent }

public enum CGImageAlphaInfo: UInt32 {
  case none
  case noneSkipLast = 5
}

public struct CGBitmapInfo {
  public init(rawValue: UInt32) {}
}

public final class CGDataProvider {
  public init?(data: CFData) { fatalError() }
}

public final class CGContext {
  public init?(
    data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
    space: CGColorSpace, bitmapInfo: UInt32
  ) { fatalError() }
  public func draw(_ image: CGImage, in rect: CGRect) {}
}

// Core Foundation, and what `as` does with it on Apple's systems.
public typealias CFString = NSString
public typealias CFData = NSData
public typealias CFDictionary = NSDictionary
