#include "cort.h"

#include <dlfcn.h>

const OrtApi *cort_open(const char *path, const char **version, const char **reason) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    *reason = dlerror();
    return NULL;
  }
  const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
  if (base == NULL) {
    *reason = "it has no OrtGetApiBase";
    return NULL;
  }
  *version = base()->GetVersionString();
  const OrtApi *api = base()->GetApi(ORT_API_VERSION);
  if (api == NULL) *reason = "it is older than the header";
  return api;
}
