#pragma once
// Where tests find the golden numbers (the project's own) and, on machines that have it, the shared
// folder of real models.

#include <cstdlib>
#include <filesystem>

namespace weft::testing {

inline std::filesystem::path FromEnv(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::filesystem::path(value)
                                            : std::filesystem::path(WEFT_SOURCE_DIR) / fallback;
}

/// Golden numbers: $WEFT_GOLDEN_DIR, default tests/golden.
inline std::filesystem::path GoldenDir() { return FromEnv("WEFT_GOLDEN_DIR", "tests/golden"); }
/// Real models, tokenizers and data: $WEFT_SHARED_DIR, default ../shared. May be absent.
inline std::filesystem::path SharedDir() { return FromEnv("WEFT_SHARED_DIR", "../shared"); }
inline bool HaveShared() { return std::filesystem::exists(SharedDir() / "models"); }

}  // namespace weft::testing

/// Ends the test as skipped where the shared folder is absent.
#define WEFT_NEEDS_SHARED()                                                       \
  do {                                                                            \
    if (!::weft::testing::HaveShared())                                           \
      GTEST_SKIP() << "needs the shared models (set WEFT_SHARED_DIR), absent at " \
                   << ::weft::testing::SharedDir();                               \
  } while (false)
