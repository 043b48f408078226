import XCTest

@testable import PocketDiffusion

final class TensorTests: XCTestCase {
  private let six = Tensor([0, 1, 2, 3, 4, 5] as [Float], shape: [1, 2, 3])

  func testAxesAreReorderedAsNumpyDoes() {
    XCTAssertEqual(six.transposed([0, 2, 1]), Tensor([0, 3, 1, 4, 2, 5] as [Float], shape: [1, 3, 2]))
    XCTAssertEqual(six.transposed([2, 0, 1])?.shape, [3, 1, 2])
    XCTAssertEqual(six.transposed([0, 1, 2]), six)
    for wrong in [[0, 1], [0, 0, 1], [0, 1, 3]] { XCTAssertNil(six.transposed(wrong)) }
    let (order, back) = ([1, 2, 0], [2, 0, 1])
    XCTAssertEqual(six.transposed(order)?.transposed(back), six)
  }

  func testJoiningAndCutting() {
    let two = Tensor.concat([six, six], axis: 0)
    XCTAssertEqual(two?.shape, [2, 2, 3])
    XCTAssertEqual(two?.cut(2), [six, six])
    XCTAssertEqual(Tensor.concat([six, six], axis: 2)?.floats, [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5])
    let wider = Tensor([9, 9] as [Float], shape: [1, 2, 1])
    XCTAssertEqual(Tensor.concat([six, wider], axis: 2)?.floats, [0, 1, 2, 9, 3, 4, 5, 9])
    XCTAssertNil(Tensor.concat([six, wider], axis: 1))
    XCTAssertNil(Tensor.concat([six, Tensor([0] as [Int32], shape: [1, 1, 1])], axis: 2))
    XCTAssertNil(Tensor.concat([six], axis: 3))
    XCTAssertNil(six.cut(2))
    XCTAssertEqual(Tensor.sum([six, six])?.floats, [0, 2, 4, 6, 8, 10])
    XCTAssertNil(Tensor.sum([six, wider]))
  }

  func testConversionsCutAndRound() {
    let floats = Tensor([-1.9, 2.9, .infinity, 1e30, .nan] as [Float], shape: [5])
    XCTAssertEqual(floats.converted(to: .int32).ints[..<2], [-1, 2])
    XCTAssertEqual(floats.converted(to: .int64).converted(to: .float32).floats[..<2], [-1, 2])
    let halves = Tensor([1.000_488_3, 65519, 65520, 5.960_464_5e-8] as [Float], shape: [4]).converted(to: .float16)
    XCTAssertEqual(halves.converted(to: .float32).floats, [1, 65504, .infinity, 5.960_464_5e-8])
    XCTAssertFalse(halves.isFinite)
    XCTAssertFalse(floats.isFinite)
    XCTAssertTrue(six.isFinite)
    XCTAssertEqual(Tensor([7, 300] as [Int32], shape: [2]).converted(to: .uint8).bytes, [7, 44])
  }

  func testAFileOfAnotherSizeIsNamed() {
    assertThrows(try Tensor(file: [1, 2, 3], dtype: .float32, shape: [1], place: "a.bin")) { error in
      if case .contradiction("a.bin", _) = error { true } else { false }
    }
    assertThrows(try Tensor(file: [], dtype: .float32, shape: [-1, 0], place: "a.bin")) { error in
      if case .contradiction("a.bin", _) = error { true } else { false }
    }
  }
}
