#pragma once
// Which layers a spec chooses, by PEFT's rules; the parts of MatchSites (adapter.h) that PEFT
// import and the methods use on their own. Torch-free.

#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/plan/adapter_spec.h"

namespace weft {

/// AdapterSpec::options key: one regular expression of excluded paths, PEFT's exclude_modules when
/// that is a string.
inline constexpr std::string_view kExcludeRegexOption = "exclude_regex";

/// AdapterSpec::options key that the plan of a run sets where a method takes something out of the
/// base model (Adapter::BaseChange): SHA-256 of that, which every client checks.
inline constexpr std::string_view kBaseChangeOption = "base_change";

/// The value of the spec's option of that name; null where it has none.
[[nodiscard]] inline const std::string* FindOption(const AdapterSpec& spec, std::string_view name) {
  for (const auto& [option, value] : spec.options) {
    if (option == name) return &value;
  }
  return nullptr;
}

/// kInvalidArgument if a regular expression of the spec does not compile, or layers are chosen
/// together with target_regex, which PEFT does not allow.
[[nodiscard]] Status CheckPatterns(const AdapterSpec& spec);

/// Does the spec choose the layer of this path? Says nothing about whether the layer exists.
[[nodiscard]] Result<bool> Chooses(const AdapterSpec& spec, std::string_view path);

/// Is it a layer of a classification head? These are PEFT's names for one ("classifier", "score");
/// "all-linear" passes them over.
[[nodiscard]] bool IsHeadPath(std::string_view path);

/// Does PEFT's rank_pattern or alpha_pattern key cover this path: (.*\.)?(key)$ from its start?
[[nodiscard]] bool PatternCovers(std::string_view key, std::string_view path);

}  // namespace weft
