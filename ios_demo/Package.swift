// swift-tools-version:6.0
import PackageDescription

let strict: [SwiftSetting] = [.unsafeFlags(["-warnings-as-errors"], .when(platforms: [.linux]))]

var products: [Product] = [.library(name: "PocketDiffusion", targets: ["PocketDiffusion"])]
var targets: [Target] = [
  .target(name: "PocketDiffusion", swiftSettings: strict)
]

#if os(Linux)
  // onnxruntime, opened at run time from the Python wheel, stands in for Core ML where this package is tested.
  targets += [
    .target(name: "COrt"),
    .target(name: "OrtRunner", dependencies: ["PocketDiffusion", "COrt"], swiftSettings: strict),
    .testTarget(
      name: "PocketDiffusionTests", dependencies: ["PocketDiffusion", "OrtRunner"], swiftSettings: strict),
  ]
#endif

let package = Package(
  name: "PocketDiffusion",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: products,
  targets: targets
)
