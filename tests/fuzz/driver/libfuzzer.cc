// One target as a libFuzzer program: WEFT_FUZZ_TARGET names it. CheckFailure is not caught, so a
// property that does not hold ends the program like any crash.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/fuzz_target.h"

namespace {

const weft::fuzz::Target& TheTarget() {
  const auto targets = weft::fuzz::Targets();
  const auto found = std::find_if(targets.begin(), targets.end(),
                                  [](const auto& t) { return t.name == WEFT_FUZZ_TARGET; });
  if (found == targets.end()) {
    std::fprintf(stderr, "no target %s in targets/registry.cc\n", WEFT_FUZZ_TARGET);
    std::abort();
  }
  return *found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const weft::fuzz::Target& target = TheTarget();
  target.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
