#include "common/net/descriptors.h"

#include <sys/resource.h>

#include "common/base/str.h"

namespace weft {

uint64_t RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlimit raised{limit.rlim_max, limit.rlim_max};
  if (limit.rlim_cur < limit.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  return limit.rlim_cur;
}

Status NeedDescriptors(std::string_view what, uint64_t wanted) {
  const uint64_t got = RaiseDescriptorLimit();
  if (got >= wanted) return OkStatus();
  return ResourceExhausted(Str("[net] ", what, ": this process may open ", got,
                               " descriptors, wanted ", wanted,
                               "; raise the hard limit (`ulimit -Hn`, LimitNOFILE= of a service)"));
}

}  // namespace weft
