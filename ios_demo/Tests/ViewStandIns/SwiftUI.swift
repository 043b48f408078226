// A stand-in for type-checking on Linux: see README.md.
@_exported import Combine
@_exported import CoreGraphics
@_exported import Foundation
@_exported import Observation
@_exported import UIKit
@_exported import UniformTypeIdentifiers

// MARK: views

@MainActor @preconcurrency public protocol View {
  associatedtype Body: View
  @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View { public var body: Never { fatalError() } }

/// What stands for the body of a view that is made of no other.
extension View where Body == Never { public var body: Never { fatalError() } }

public struct EmptyView: View {
  public typealias Body = Never
  public nonisolated init() {}
}

public struct TupleView<T>: View { public typealias Body = Never }

public struct Either<A: View, B: View>: View { public typealias Body = Never }

extension Optional: View where Wrapped: View { public typealias Body = Never }

@resultBuilder public enum ViewBuilder {
  public static func buildExpression<V: View>(_ view: V) -> V { view }
  public static func buildBlock() -> EmptyView { EmptyView() }
  public static func buildBlock<V: View>(_ view: V) -> V { view }
  public static func buildBlock<each V: View>(_ views: repeat each V) -> TupleView<(repeat each V)> { fatalError() }
  public static func buildIf<V: View>(_ view: V?) -> V? { view }
  public static func buildEither<A: View, B: View>(first: A) -> Either<A, B> { fatalError() }
  public static func buildEither<A: View, B: View>(second: B) -> Either<A, B> { fatalError() }
}

public struct Made<Content>: View { public typealias Body = Never }

// MARK: data

@propertyWrapper public struct State<Value> {
  public init(wrappedValue: Value) {}
  public var wrappedValue: Value {
    get { fatalError() }
    nonmutating set { fatalError() }
  }
  public var projectedValue: Binding<Value> { fatalError() }
}

@propertyWrapper @dynamicMemberLookup public struct Binding<Value> {
  public init(
    get: @escaping @isolated(any) @Sendable () -> Value, set: @escaping @isolated(any) @Sendable (Value) -> Void
  ) {}
  public var wrappedValue: Value {
    get { fatalError() }
    nonmutating set { fatalError() }
  }
  public var projectedValue: Binding<Value> { self }
  public subscript<Part>(dynamicMember path: WritableKeyPath<Value, Part>) -> Binding<Part> { fatalError() }
}

extension Binding: @unchecked Sendable where Value: Sendable {}

@propertyWrapper @dynamicMemberLookup public struct Bindable<Value> {
  public init(wrappedValue: Value) {}
  public var wrappedValue: Value { fatalError() }
  public var projectedValue: Bindable<Value> { self }
  public subscript<Part>(dynamicMember path: ReferenceWritableKeyPath<Value, Part>) -> Binding<Part> { fatalError() }
}

@propertyWrapper public struct FocusState<Value: Hashable> {
  public init() where Value == Bool {}
  public var wrappedValue: Value {
    get { fatalError() }
    nonmutating set { fatalError() }
  }
  public var projectedValue: Binding { fatalError() }
  public struct Binding {}
}

public struct EnvironmentValues {
  public var scenePhase: ScenePhase { fatalError() }
  public var dynamicTypeSize: DynamicTypeSize { fatalError() }
}

@propertyWrapper public struct Environment<Value> {
  public init(_ path: KeyPath<EnvironmentValues, Value>) {}
  public var wrappedValue: Value { fatalError() }
}

public enum ScenePhase { case background, inactive, active }

public enum DynamicTypeSize {
  case large
  public var isAccessibilitySize: Bool { fatalError() }
}

// MARK: the app

@MainActor @preconcurrency public protocol App {
  associatedtype Body: Scene
  @SceneBuilder @MainActor @preconcurrency var body: Body { get }
  @MainActor @preconcurrency init()
}

extension App { @MainActor public static func main() {} }

@MainActor @preconcurrency public protocol Scene {}

@resultBuilder public enum SceneBuilder {
  public static func buildBlock<S: Scene>(_ scene: S) -> S { scene }
}

public struct WindowGroup<Content: View>: Scene { public nonisolated init(@ViewBuilder content: () -> Content) {} }

public struct MadeScene: Scene {}

public struct BackgroundTask<Request, Response> {}

extension BackgroundTask where Request == Void, Response == Void {
  public static func urlSession(_ identifier: String) -> BackgroundTask<Void, Void> { fatalError() }
}

extension Scene {
  public nonisolated func onChange<V: Equatable>(
    of value: V, initial: Bool = false, _ action: @escaping (_ old: V, _ new: V) -> Void
  ) -> some Scene { MadeScene() }
  public nonisolated func backgroundTask<Request, Response>(
    _ task: BackgroundTask<Request, Response>, action: @escaping @Sendable (Request) async -> Response
  ) -> some Scene { MadeScene() }
}

// MARK: texts and pictures

public struct Text: View {
  public typealias Body = Never
  public init(verbatim text: String) {}
  public init(_ key: LocalizedStringKey) {}
  @_disfavoredOverload public init<S: StringProtocol>(_ text: S) {}
  public enum Case: Sendable { case uppercase, lowercase }
}

public struct LocalizedStringKey: ExpressibleByStringLiteral { public init(stringLiteral text: String) {} }

public struct Image: View {
  public typealias Body = Never
  public init(systemName: String) {}
  public init(_ image: CGImage, scale: CGFloat, label: Text) {}
  public func resizable() -> Image { self }
  public func interpolation(_ interpolation: Interpolation) -> Image { self }
  public enum Interpolation { case none, low, medium, high }
}

public struct Label<Title: View, Icon: View>: View {
  public typealias Body = Never
  public nonisolated init(@ViewBuilder title: () -> Title, @ViewBuilder icon: () -> Icon) {}
}

public struct Font: Sendable { public static let headline = Font(), footnote = Font(), caption = Font() }

public struct Color: View, ShapeStyle {
  public typealias Body = Never
  public static let red = Color(), orange = Color()
}

public protocol ShapeStyle {}
extension ShapeStyle where Self == Color {
  public static var red: Color { fatalError() }
  public static var orange: Color { fatalError() }
}
public struct HierarchicalShapeStyle: ShapeStyle {}
extension ShapeStyle where Self == HierarchicalShapeStyle {
  public static var secondary: HierarchicalShapeStyle { fatalError() }
}

// MARK: containers

public enum HorizontalAlignment { case leading, center, trailing }
public enum VerticalAlignment { case top, center, bottom }

public struct VStack<Content: View>: View {
  public typealias Body = Never
  public nonisolated init(
    alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content
  ) {}
}

public struct HStack<Content: View>: View {
  public typealias Body = Never
  public nonisolated init(
    alignment: VerticalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content
  ) {}
}

public protocol Layout {}
public struct VStackLayout: Layout {
  public init(alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil) {}
}
public struct HStackLayout: Layout {
  public init(alignment: VerticalAlignment = .center, spacing: CGFloat? = nil) {}
}
public struct AnyLayout: Layout {
  public init<L: Layout>(_ layout: L) {}
  public func callAsFunction<V: View>(@ViewBuilder _ content: () -> V) -> some View { content() }
}

public struct Spacer: View {
  public typealias Body = Never
  public init() {}
}

public struct ScrollView<Content: View>: View {
  public typealias Body = Never
  public nonisolated init(@ViewBuilder content: () -> Content) {}
}

public struct Form<Content: View>: View {
  public typealias Body = Never
  public nonisolated init(@ViewBuilder content: () -> Content) {}
}

public struct Section<Parent, Content, Footer> {}
extension Section: View where Parent: View, Content: View, Footer: View { public typealias Body = Never }
extension Section where Parent: View, Content: View, Footer: View {
  public nonisolated init(
    @ViewBuilder content: () -> Content, @ViewBuilder header: () -> Parent, @ViewBuilder footer: () -> Footer
  ) {}
}
extension Section where Parent == EmptyView, Content: View, Footer: View {
  public nonisolated init(@ViewBuilder content: () -> Content, @ViewBuilder footer: () -> Footer) {}
}
extension Section where Parent: View, Content: View, Footer == EmptyView {
  public nonisolated init(@ViewBuilder content: () -> Content, @ViewBuilder header: () -> Parent) {}
}
extension Section where Parent == EmptyView, Content: View, Footer == EmptyView {
  public nonisolated init(@ViewBuilder content: () -> Content) {}
}

public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content: View>: View {
  public typealias Body = Never
  public nonisolated init(
    _ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Content
  ) {}
}
extension ForEach where ID == Data.Element.ID, Data.Element: Identifiable {
  public nonisolated init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content) {}
}

public struct TabView<Content: View>: View {
  public typealias Body = Never
  public nonisolated init(@ViewBuilder content: () -> Content) {}
}

public struct NavigationStack<Content: View>: View {
  public typealias Body = Never
  public nonisolated init(@ViewBuilder content: () -> Content) {}
}

public struct NavigationLink<Label: View, Destination: View>: View {
  public typealias Body = Never
  public nonisolated init(@ViewBuilder destination: () -> Destination, @ViewBuilder label: () -> Label) {}
}

public struct LabeledContent<Label: View, Content: View>: View {
  public typealias Body = Never
  public nonisolated init(@ViewBuilder content: () -> Content, @ViewBuilder label: () -> Label) {}
}

public protocol TimelineSchedule {}
public struct PeriodicTimelineSchedule: TimelineSchedule {}
extension TimelineSchedule where Self == PeriodicTimelineSchedule {
  public static func periodic(from: Date, by: TimeInterval) -> PeriodicTimelineSchedule { fatalError() }
}
public struct TimelineView<Schedule: TimelineSchedule, Content: View>: View {
  public typealias Body = Never
  public struct Context {}
  public nonisolated init(_ schedule: Schedule, @ViewBuilder content: @escaping (Context) -> Content) {}
}

// MARK: controls

public enum Axis { case horizontal, vertical }
public struct ButtonRole: Sendable { public static let destructive = ButtonRole(), cancel = ButtonRole() }

public struct Button<Label: View>: View {
  public typealias Body = Never
  public nonisolated init(action: @escaping @MainActor () -> Void, @ViewBuilder label: () -> Label) {}
  public nonisolated init(role: ButtonRole?, action: @escaping @MainActor () -> Void, @ViewBuilder label: () -> Label) {
  }
}

public struct TextField: View {
  public typealias Body = Never
  public nonisolated init<S: StringProtocol>(_ title: S, text: Binding<String>) {}
  public nonisolated init<S: StringProtocol>(_ title: S, text: Binding<String>, axis: Axis) {}
}

public struct Toggle<Label: View>: View {
  public typealias Body = Never
  public nonisolated init(isOn: Binding<Bool>, @ViewBuilder label: () -> Label) {}
}

public struct Slider: View {
  public typealias Body = Never
  public nonisolated init<V: BinaryFloatingPoint>(value: Binding<V>, in bounds: ClosedRange<V>, step: V.Stride)
  where V.Stride: BinaryFloatingPoint {}
}

public struct Picker<Label: View, Selection: Hashable, Content: View>: View {
  public typealias Body = Never
  public nonisolated init(
    selection: Binding<Selection>, @ViewBuilder content: () -> Content, @ViewBuilder label: () -> Label
  ) {}
}

public struct ProgressView<Label: View>: View {
  public typealias Body = Never
  public nonisolated init(@ViewBuilder label: () -> Label) {}
  public nonisolated init<V: BinaryFloatingPoint>(value: V?, total: V = 1.0, @ViewBuilder label: () -> Label) {}
}

public struct ShareLink<Label: View>: View {
  public typealias Body = Never
  public nonisolated init(item: URL, @ViewBuilder label: () -> Label) {}
}

public struct Link<Label: View>: View {
  public typealias Body = Never
  public nonisolated init(destination: URL, @ViewBuilder label: () -> Label) {}
}

public protocol ToolbarContent {}
public struct ToolbarItemPlacement: Sendable { public static let confirmationAction = ToolbarItemPlacement() }
public struct ToolbarItem<Content: View>: ToolbarContent {
  public nonisolated init(placement: ToolbarItemPlacement, @ViewBuilder content: () -> Content) {}
}
@resultBuilder public enum ToolbarContentBuilder {
  public static func buildBlock<C: ToolbarContent>(_ content: C) -> C { content }
}

// MARK: modifiers

// swift-format-ignore
public enum UIKeyboardType { case URL, numbersAndPunctuation }
public struct TextInputAutocapitalization: Sendable {
  public static var never: TextInputAutocapitalization { fatalError() }
}
public protocol LabelStyle {}
public struct IconOnlyLabelStyle: LabelStyle {}
extension LabelStyle where Self == IconOnlyLabelStyle {
  public static var iconOnly: IconOnlyLabelStyle { fatalError() }
}
public protocol TextSelectability {}
public struct EnabledTextSelectability: TextSelectability {}
extension TextSelectability where Self == EnabledTextSelectability {
  public static var enabled: EnabledTextSelectability { fatalError() }
}
public enum ContentMode { case fit, fill }
public enum Visibility { case automatic, visible, hidden }
public struct ScrollDismissesKeyboardMode: Sendable { public static var interactively: Self { fatalError() } }
public struct AccessibilityChildBehavior: Sendable { public static let combine = Self() }
public struct AccessibilityTraits: Sendable { public static let updatesFrequently = Self() }

extension View {
  public nonisolated func accessibilityAddTraits(_ traits: AccessibilityTraits) -> some View { Made<Self>() }
  public nonisolated func accessibilityElement(children: AccessibilityChildBehavior) -> some View { Made<Self>() }
  public nonisolated func accessibilityLabel(_ label: Text) -> some View { Made<Self>() }
  public nonisolated func aspectRatio(_ ratio: CGFloat?, contentMode: ContentMode) -> some View { Made<Self>() }
  public nonisolated func autocorrectionDisabled(_ disabled: Bool = true) -> some View { Made<Self>() }
  public nonisolated func confirmationDialog<A: View>(
    _ title: Text, isPresented: Binding<Bool>, titleVisibility: Visibility = .automatic, @ViewBuilder actions: () -> A
  ) -> some View { Made<Self>() }
  public nonisolated func disabled(_ disabled: Bool) -> some View { Made<Self>() }
  public nonisolated func fileImporter(
    isPresented: Binding<Bool>, allowedContentTypes: [UTType], onCompletion: @escaping (Result<URL, any Error>) -> Void
  ) -> some View { Made<Self>() }
  public nonisolated func focused(_ condition: FocusState<Bool>.Binding) -> some View { Made<Self>() }
  public nonisolated func font(_ font: Font?) -> some View { Made<Self>() }
  public nonisolated func foregroundStyle<S: ShapeStyle>(_ style: S) -> some View { Made<Self>() }
  public nonisolated func frame(maxWidth: CGFloat?) -> some View { Made<Self>() }
  public nonisolated func keyboardType(_ type: UIKeyboardType) -> some View { Made<Self>() }
  public nonisolated func labelStyle<S: LabelStyle>(_ style: S) -> some View { Made<Self>() }
  public nonisolated func navigationTitle(_ title: Text) -> some View { Made<Self>() }
  public nonisolated func onChange<V: Equatable>(
    of value: V, initial: Bool = false, _ action: @escaping (_ old: V, _ new: V) -> Void
  ) -> some View { Made<Self>() }
  public nonisolated func onReceive<P: Publisher>(_ publisher: P, perform: @escaping (P.Output) -> Void) -> some View
  where P.Failure == Never { Made<Self>() }
  public nonisolated func padding() -> some View { Made<Self>() }
  public nonisolated func refreshable(action: @escaping @Sendable () async -> Void) -> some View { Made<Self>() }
  public nonisolated func scrollDismissesKeyboard(_ mode: ScrollDismissesKeyboardMode) -> some View { Made<Self>() }
  public nonisolated func swipeActions<T: View>(@ViewBuilder content: () -> T) -> some View { Made<Self>() }
  public nonisolated func tabItem<V: View>(@ViewBuilder _ label: () -> V) -> some View { Made<Self>() }
  public nonisolated func tag<V: Hashable>(_ tag: V) -> some View { Made<Self>() }
  public nonisolated func task(_ action: @escaping @Sendable @isolated(any) () async -> Void) -> some View {
    Made<Self>()
  }
  public nonisolated func textCase(_ textCase: Text.Case?) -> some View { Made<Self>() }
  public nonisolated func textInputAutocapitalization(_ style: TextInputAutocapitalization?) -> some View {
    Made<Self>()
  }
  public nonisolated func textSelection<S: TextSelectability>(_ selectability: S) -> some View { Made<Self>() }
  public nonisolated func tint(_ color: Color?) -> some View { Made<Self>() }
  public nonisolated func toolbar<C: ToolbarContent>(@ToolbarContentBuilder content: () -> C) -> some View {
    Made<Self>()
  }
}
