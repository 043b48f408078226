// A stand-in for type-checking on Linux: see README.md.
@_exported import Photos
@_exported import SwiftUI

public struct PHPickerFilter: Sendable {
  public static let images = PHPickerFilter()
}

public protocol Transferable {}
extension Data: Transferable {}

public struct PhotosPickerItem: Hashable, Sendable {
  public func loadTransferable<T: Transferable>(type: T.Type) async throws -> T? { fatalError() }
}

public struct PhotosPicker<Label: View>: View {
  public nonisolated init(
    selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil, @ViewBuilder label: () -> Label
  ) {}
}
