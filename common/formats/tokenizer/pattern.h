#pragma once
// Pattern: what a Split or Replace component looks for, a literal or a regular expression.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/formats/tokenizer/json_view.h"
#include "common/formats/tokenizer/regex.h"

namespace weft {

class Pattern {
 public:
  /// From {"String": "…"} or {"Regex": "…"}, or a plain string.
  [[nodiscard]] static Result<Pattern> Read(const JsonView& json);

  void FindAll(std::string_view text, std::vector<TextRange>& matches) const;
  /// Each match replaced by `content`, which is literal.
  [[nodiscard]] std::string ReplaceAll(std::string_view text, std::string_view content) const;

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace weft
