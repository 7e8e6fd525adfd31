#pragma once
// PathRegex: the regular expressions of PEFT's configurations, matched against module paths. They
// are written for Python's `re`; PCRE2 reads them alike. Constant after Compile; any thread.

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.h"

struct pcre2_real_code_8;

namespace weft {

class PathRegex {
 public:
  /// kInvalidArgument with PCRE2's message and the offset where the pattern is wrong.
  [[nodiscard]] static Result<PathRegex> Compile(std::string_view pattern);

  /// Python's re.fullmatch. kResourceExhausted where a hostile pattern passes the limit of steps.
  [[nodiscard]] Result<bool> FullMatch(std::string_view path) const;
  /// Python's re.match: from the start, to anywhere.
  [[nodiscard]] Result<bool> MatchStart(std::string_view path) const;
  /// re.match's named group; nothing when the pattern does not match or the group took no part.
  [[nodiscard]] Result<std::optional<std::string>> MatchGroup(std::string_view path,
                                                              std::string_view group) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  PathRegex() = default;
  [[nodiscard]] Result<bool> Run(std::string_view path, unsigned options, std::string_view group,
                                 std::optional<std::string>* captured) const;

  std::string pattern_;
  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace weft
