import AppModels
import Combine
import Foundation
import PocketDiffusion
import UIKit

/// What this app is on an iPhone: its folders, its engine, its name.
@MainActor enum Surroundings {
  static let memoryWarnings = NotificationCenter.default.publisher(
    for: UIApplication.didReceiveMemoryWarningNotification)

  static let backgroundTime = BackgroundTime(
    begin: { expired in UIApplication.shared.beginBackgroundTask { MainActor.assumeIsolated { expired() } } },
    end: { UIApplication.shared.endBackgroundTask($0) })

  static var app: ProgramVersion {
    let version = Bundle.main.object(forInfoDictionaryKey: "CFBundleShortVersionString") as? String
    return ProgramVersion(name: Bundle.main.bundleIdentifier ?? "", version: version ?? "")
  }

  static func makeStudio() -> Studio {
    guard let folders = try? AppFolders.ofApp() else { fatalError("iOS gave the app no folder of its own") }
    return Studio(
      folders: folders, engines: [CoreMLEngine(compiled: folders.compiled)], phone: .current(app: app),
      downloads: BackgroundDownload())
  }

  /// Does what the launch arguments say, or opens the bundle that was drawn with last.
  static func begin(_ studio: Studio) async {
    let arguments = Array(ProcessInfo.processInfo.arguments.dropFirst())
    if Headless.isWanted(arguments) {
      exit(await Headless(studio: studio, folder: studio.documents).run(arguments))
    }
    await studio.start()
    await studio.followRunningDownload()
  }
}
