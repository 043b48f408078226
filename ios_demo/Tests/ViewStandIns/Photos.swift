// A stand-in for type-checking on Linux: see README.md.
@_exported import Foundation

public final class PHPhotoLibrary: @unchecked Sendable {
  public static func shared() -> PHPhotoLibrary { fatalError() }
  public static func requestAuthorization(for level: PHAccessLevel) async -> PHAuthorizationStatus { fatalError() }
  public func performChanges(_ changes: @escaping @Sendable () -> Void) async throws {}
}

public enum PHAccessLevel { case addOnly, readWrite }

public enum PHAuthorizationStatus { case notDetermined, restricted, denied, authorized, limited }

public enum PHAssetResourceType { case photo }

public final class PHAssetResourceCreationOptions {}

public final class PHAssetCreationRequest {
  public static func forAsset() -> PHAssetCreationRequest { fatalError() }
  public func addResource(with type: PHAssetResourceType, fileURL: URL, options: PHAssetResourceCreationOptions?) {}
}
