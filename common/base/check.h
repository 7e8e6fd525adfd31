#pragma once
// WEFT_CHECK(condition, values...): a bug in our own code, never something a peer or a file can
// cause. Always on. Throws CheckFailure, which only main() and tests catch.

#include <stdexcept>
#include <string>

#include "common/base/str.h"

namespace weft {

class CheckFailure : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void FailCheck(const char* file, int line, const char* condition,
                            const std::string& values);

}  // namespace weft

#define WEFT_CHECK(condition, ...)                                   \
  do {                                                               \
    if (!(condition)) [[unlikely]]                                   \
      ::weft::FailCheck(__FILE__, __LINE__, #condition,              \
                        ::weft::Str("" __VA_OPT__(, ) __VA_ARGS__)); \
  } while (false)
