#include "common/base/check.h"

namespace weft {

void FailCheck(const char* file, int line, const char* condition, const std::string& values) {
  throw CheckFailure(
      Str(file, ":", line, ": check failed: ", condition, values.empty() ? "" : " | ", values));
}

}  // namespace weft
