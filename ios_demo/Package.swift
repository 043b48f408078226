// swift-tools-version:6.0
import PackageDescription

var targets: [Target] = [
  .target(name: "PocketDiffusion"),
  .target(name: "AppModels", dependencies: ["PocketDiffusion"]),
]

#if os(Linux)
  // onnxruntime, opened at run time from the Python wheel, stands in for Core ML where this package is tested.
  targets += [
    .target(name: "COrt"),
    .target(name: "CObservation"),
    .target(name: "OrtRunner", dependencies: ["PocketDiffusion", "COrt"]),
    .testTarget(name: "PocketDiffusionTests", dependencies: ["PocketDiffusion", "OrtRunner"]),
    .testTarget(
      name: "AppModelsTests", dependencies: ["AppModels", "OrtRunner", "CObservation"],
      swiftSettings: [.swiftLanguageMode(.v5)]),
  ]
#endif

let package = Package(
  name: "PocketDiffusion",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [
    .library(name: "PocketDiffusion", targets: ["PocketDiffusion"]),
    .library(name: "AppModels", targets: ["AppModels"]),
  ],
  targets: targets
)
