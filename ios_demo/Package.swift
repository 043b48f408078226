// swift-tools-version:6.0
import PackageDescription

let strict: [SwiftSetting] = [.unsafeFlags(["-warnings-as-errors"], .when(platforms: [.linux]))]

var products: [Product] = [
  .library(name: "PocketDiffusion", targets: ["PocketDiffusion"]),
  .library(name: "AppModels", targets: ["AppModels"]),
]
var targets: [Target] = [
  .target(name: "PocketDiffusion", swiftSettings: strict),
  .target(name: "AppModels", dependencies: ["PocketDiffusion"], swiftSettings: strict),
]

#if os(Linux)
  // onnxruntime, opened at run time from the Python wheel, stands in for Core ML where this package is tested.
  targets += [
    .target(name: "COrt"),
    .target(name: "CObservation"),
    .target(name: "OrtRunner", dependencies: ["PocketDiffusion", "COrt"], swiftSettings: strict),
    .testTarget(
      name: "PocketDiffusionTests", dependencies: ["PocketDiffusion", "OrtRunner"], swiftSettings: strict),
    .testTarget(
      name: "AppModelsTests", dependencies: ["AppModels", "OrtRunner", "CObservation"],
      swiftSettings: strict + [.swiftLanguageMode(.v5)]),
  ]
#endif

let package = Package(
  name: "PocketDiffusion",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: products,
  targets: targets
)
