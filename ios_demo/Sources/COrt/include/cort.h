// Opens onnxruntime's library at run time. Nothing is linked against it.
#ifndef CORT_H
#define CORT_H

#include "onnxruntime_c_api.h"

// Returns the functions of the library at `path`, and its version; or NULL, and why not. Both texts live on.
const OrtApi *cort_open(const char *path, const char **version, const char **reason);

#endif
