// swift-tools-version:6.0
import PackageDescription

var targets: [Target] = [.target(name: "PocketDiffusion")]

#if os(Linux)
  // onnxruntime, opened at run time from the Python wheel, stands in for Core ML where this package is tested.
  targets += [
    .target(name: "COrt"),
    .target(name: "OrtRunner", dependencies: ["PocketDiffusion", "COrt"]),
    .testTarget(name: "PocketDiffusionTests", dependencies: ["PocketDiffusion", "OrtRunner"]),
  ]
#endif

let package = Package(
  name: "PocketDiffusion",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [.library(name: "PocketDiffusion", targets: ["PocketDiffusion"])],
  targets: targets
)
