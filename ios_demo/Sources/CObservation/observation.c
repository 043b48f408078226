// Swift before 6.2 on Linux: libswiftObservation.so wants swift::threading::fatal, which no library exports
// (swiftlang/swift issue 75670). Linked by tests and tools on Linux alone.
#include "observation.h"

#include <stdlib.h>

void pocket_threading_fatal(const char *said, ...) __asm__("_ZN5swift9threading5fatalEPKcz");

void pocket_threading_fatal(const char *said, ...) { abort(); }
