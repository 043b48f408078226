import Foundation

/// What a person should know of a bundle on this device, though it can be drawn with.
public enum Notice: Equatable, Sendable {
  /// It was made for another phone: nobody measured it on this one. The system does not tell which phone this is, so
  /// that a person has to compare.
  case madeFor(phone: String)
  /// It was made for a phone with more memory than this device has.
  case lessMemory(phone: String, phoneMB: Int, hereMB: Int)
  /// It failed its proof, and was opened on a developer's wish.
  case unproven(subject: String?)
}

extension Notice: CustomStringConvertible {
  public var description: String {
    switch self {
    case .madeFor(let phone):
      "This bundle was made for \(phone). On another phone, run the self-test before you trust its pictures."
    case .lessMemory(let phone, let phoneMB, let hereMB):
      "This bundle was made for \(phone) with \(phoneMB) MB of memory, and here are \(hereMB) MB: drawing may not fit."
    case .unproven(let subject):
      "This bundle failed its proof\(subject.map { ", \($0) above all" } ?? ""): its pictures may be wrong."
    }
  }
}

extension ModelBundle {
  /// What a person should know of this bundle on a device of `memory` bytes.
  public func notices(memory: UInt64 = ProcessInfo.processInfo.physicalMemory) -> [Notice] {
    let target = manifest.target
    var notices = [Notice.madeFor(phone: target.title)]
    let hereMB = Int(memory >> 20)
    if let phoneMB = target.memoryMb, hereMB * 10 < phoneMB * 9 {  // a system keeps some of it for itself
      notices.append(.lessMemory(phone: target.title, phoneMB: phoneMB, hereMB: hereMB))
    }
    if !manifest.proof.passed { notices.append(.unproven(subject: manifest.proof.worst?.subject)) }
    return notices
  }
}
