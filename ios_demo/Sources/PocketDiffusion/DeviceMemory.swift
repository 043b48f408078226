import Foundation

#if os(iOS)
  import os
#endif

/// What the system says of this app's memory.
public enum DeviceMemory {
  /// The bytes that the app may still take before iOS ends it; nil where the system does not say.
  @Sendable public static func available() -> Int64? {
    #if os(iOS)
      let bytes = os_proc_available_memory()
      return bytes == 0 ? nil : Int64(bytes)  // 0: not an app
    #else
      return nil
    #endif
  }

  /// The bytes that the app takes now; nil where the system does not say.
  static func footprint() -> Int64? {
    #if canImport(Darwin)
      var info = task_vm_info_data_t()
      var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
      let result = withUnsafeMutablePointer(to: &info) { pointer in
        pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
          task_info(task_self_trap(), task_flavor_t(TASK_VM_INFO), $0, &count)
        }
      }
      return result == KERN_SUCCESS ? Int64(info.phys_footprint) : nil
    #else
      let pages = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ")
      return pages.flatMap { $0.count > 1 ? Int64($0[1]) : nil }.map { $0 * Int64(sysconf(Int32(_SC_PAGESIZE))) }
    #endif
  }
}
