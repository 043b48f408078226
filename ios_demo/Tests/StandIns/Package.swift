// swift-tools-version:6.0
import PackageDescription

// Stand-ins, for Linux alone: a target with the name of an Apple framework lets the library's own sources, which lie here
// by a link, be compiled and run as on a phone. A stand-in proves our side of the fence; it is not Apple's code.
let package = Package(
  name: "StandIns",
  targets: [
    .target(name: "CoreML"),
    .target(name: "COrt"),
    .target(name: "CObservation"),
    .target(name: "PocketDiffusion", dependencies: ["CoreML"]),
    .target(name: "AppModels", dependencies: ["PocketDiffusion"]),
    .target(name: "OrtRunner", dependencies: ["PocketDiffusion", "COrt"]),
    .testTarget(name: "PocketDiffusionTests", dependencies: ["PocketDiffusion", "OrtRunner"]),
    .testTarget(
      name: "AppModelsTests", dependencies: ["AppModels", "OrtRunner", "CObservation"],
      swiftSettings: [.swiftLanguageMode(.v5)]),
    .testTarget(
      name: "StandInTests", dependencies: ["PocketDiffusion", "OrtRunner", "CoreML", "AppModels", "CObservation"]),
  ]
)
