#pragma once
// Regex: the regular expressions of tokenizer.json, which are written for Oniguruma, run by PCRE2
// (UTF, JIT). What the two read differently is rewritten (\s, \w, \h, flags) or refused. Constant
// after Compile; any thread.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;

namespace weft {

/// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
  friend bool operator==(const TextRange&, const TextRange&) = default;
};

class Regex {
 public:
  [[nodiscard]] static Result<Regex> Compile(std::string_view oniguruma_pattern);

  /// Appends all matches from left to right; they do not overlap. `text` must be valid UTF-8. Where
  /// a match costs more than the fixed limits of steps and memory (a hostile pattern), the rest of
  /// the text counts as not matching.
  void FindAll(std::string_view text, std::vector<TextRange>& matches) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
    void operator()(pcre2_real_match_context_8* context) const;
  };
  Regex() = default;

  std::unique_ptr<pcre2_real_code_8, Free> code_;
  std::unique_ptr<pcre2_real_match_context_8, Free> limits_;
};

/// The same expression in PCRE2's syntax, for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE.
[[nodiscard]] Result<std::string> FromOniguruma(std::string_view pattern);

}  // namespace weft
