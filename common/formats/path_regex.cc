#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/formats/path_regex.h"

#include <array>

#include <pcre2.h>

#include "common/base/str.h"

namespace weft {
namespace {

constexpr uint32_t kMatchStepsMax =
    1'000'000;  // module paths are short; only hostile patterns pass it

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

PCRE2_SPTR Units(std::string_view text) {
  static const unsigned char kEmpty = 0;  // PCRE2 10.42 refuses a null pointer of length 0
  return text.empty() ? &kEmpty : reinterpret_cast<PCRE2_SPTR>(text.data());
}

std::string MessageOf(int error) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(error, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

void PathRegex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Result<PathRegex> PathRegex::Compile(std::string_view pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  PathRegex regex;
  regex.pattern_ = std::string(pattern);
  regex.code_.reset(pcre2_compile(Units(pattern), pattern.size(), PCRE2_UTF | PCRE2_DOLLAR_ENDONLY,
                                  &error, &offset, nullptr));
  if (regex.code_ == nullptr) {
    return InvalidArgument(Str("the regular expression \"", pattern, "\" is wrong at offset ",
                               offset, ": ", MessageOf(error)));
  }
  return regex;
}

Result<bool> PathRegex::Run(std::string_view path, unsigned options, std::string_view group,
                            std::optional<std::string>* captured) const {
  std::unique_ptr<pcre2_match_data, FreeMatch> data(
      pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  std::unique_ptr<pcre2_match_context, FreeMatch> limits(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(limits.get(), kMatchStepsMax);
  const int found = pcre2_match(code_.get(), Units(path), path.size(), 0, PCRE2_ANCHORED | options,
                                data.get(), limits.get());
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    return ResourceExhausted(Str("the regular expression \"", pattern_, "\" against \"", path,
                                 "\": ", MessageOf(found), "; write it in a simpler way"));
  }
  if (captured == nullptr) return true;
  PCRE2_UCHAR* text = nullptr;
  PCRE2_SIZE length = 0;
  const std::string name(group);
  if (pcre2_substring_get_byname(data.get(), Units(name), &text, &length) == 0) {
    *captured = std::string(reinterpret_cast<const char*>(text), length);
    pcre2_substring_free(text);
  }
  return true;
}

Result<bool> PathRegex::FullMatch(std::string_view path) const {
  return Run(path, PCRE2_ENDANCHORED, "", nullptr);
}

Result<bool> PathRegex::MatchStart(std::string_view path) const {
  return Run(path, 0, "", nullptr);
}

Result<std::optional<std::string>> PathRegex::MatchGroup(std::string_view path,
                                                         std::string_view group) const {
  std::optional<std::string> captured;
  WEFT_TRY_ASSIGN(const bool matched, Run(path, 0, group, &captured));
  if (!matched) captured.reset();
  return captured;
}

}  // namespace weft
