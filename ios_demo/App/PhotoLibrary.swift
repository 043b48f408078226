import AppModels
import Foundation
import Photos

/// The person's photo library, to which pictures are added as the PNG files that they are: the facts in them stay.
enum PhotoLibrary {
  /// Throws `AppError.notSaved`, also where the person does not allow it.
  static func save(_ file: URL) async throws {
    guard await PHPhotoLibrary.requestAuthorization(for: .addOnly) == .authorized else {
      throw AppError.notSaved(said: "PHPhotoLibrary: not authorized")
    }
    do {
      try await PHPhotoLibrary.shared().performChanges {
        PHAssetCreationRequest.forAsset().addResource(with: .photo, fileURL: file, options: nil)
      }
    } catch {
      throw AppError.notSaved(said: error.localizedDescription)
    }
  }
}
