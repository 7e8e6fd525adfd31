#include "common/adapters/method_spec.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "common/adapters/adapter.h"
#include "common/adapters/match.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

Status CheckAlpha(double alpha, const std::string& where) {
  if (std::isfinite(alpha) && alpha != 0) return OkStatus();
  return InvalidArgument(
      Str("[adapter] ", where, ": alpha is ", alpha, ", wanted a finite number other than 0"));
}

std::string FullName(const AdapterSpec& spec, std::string_view name) {
  return Str(spec.method, ".", name);
}

template <typename Number>
std::optional<Number> Parse(const std::string& text) {
  Number number{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

template <typename Number>
Result<Number> BoundedOption(const AdapterSpec& spec, std::string_view name, Number standard,
                             Number low, Number high, std::string_view kind) {
  const std::string* const text = FindOption(spec, FullName(spec, name));
  if (text == nullptr) return standard;
  const std::optional<Number> number = Parse<Number>(*text);
  if (number && *number >= low && *number <= high) return *number;
  return InvalidArgument(Str("[adapter] option ", FullName(spec, name), " is \"", *text,
                             "\", wanted ", kind, " from ", low, " to ", high));
}

}  // namespace

Status CheckRank(int64_t rank, const std::string& where) {
  if (rank >= 1 && rank <= limits::kRankMax) return OkStatus();
  return InvalidArgument(
      Str("[adapter] ", where, ": rank is ", rank, ", wanted 1 to ", limits::kRankMax));
}

Status CheckMethodSpec(const AdapterSpec& spec, std::initializer_list<std::string_view> options) {
  WEFT_TRY(CheckRank(spec.rank, "rank"));
  WEFT_TRY(CheckAlpha(spec.alpha, "alpha"));
  if (!(spec.dropout >= 0 && spec.dropout < 1)) {
    return InvalidArgument(
        Str("[adapter] dropout is ", spec.dropout, ", wanted 0 or more and less than 1"));
  }
  for (const auto& [pattern, rank] : spec.rank_pattern) {
    WEFT_TRY(CheckRank(rank, "rank_pattern \"" + pattern + "\""));
  }
  for (const auto& [pattern, alpha] : spec.alpha_pattern) {
    WEFT_TRY(CheckAlpha(alpha, "alpha_pattern \"" + pattern + "\""));
  }
  for (const auto& [option, value] : spec.options) {
    if (option == kExcludeRegexOption || option == kBaseChangeOption) continue;
    const bool known = std::any_of(options.begin(), options.end(), [&](std::string_view name) {
      return option == FullName(spec, name);
    });
    if (known) continue;
    std::string list;
    for (const std::string_view name : options) {
      list += (list.empty() ? "; known: " : ", ") + FullName(spec, name);
    }
    return InvalidArgument(
        Str("[adapter] method ", spec.method, " has no option \"", option, "\"", list));
  }
  return CheckPatterns(spec);
}

Result<int64_t> IntegerOption(const AdapterSpec& spec, std::string_view name, int64_t standard,
                              int64_t low, int64_t high) {
  return BoundedOption<int64_t>(spec, name, standard, low, high, "a whole number");
}

Result<double> NumberOption(const AdapterSpec& spec, std::string_view name, double standard,
                            double low, double high) {
  return BoundedOption<double>(spec, name, standard, low, high, "a number");
}

Result<std::string> WordOption(const AdapterSpec& spec, std::string_view name,
                               std::initializer_list<std::string_view> words) {
  const std::string* const text = FindOption(spec, FullName(spec, name));
  if (text == nullptr) return std::string(*words.begin());
  if (std::find(words.begin(), words.end(), *text) != words.end()) return *text;
  std::string list;
  for (const std::string_view word : words) list += (list.empty() ? "" : ", ") + std::string(word);
  return InvalidArgument(
      Str("[adapter] option ", FullName(spec, name), " is \"", *text, "\", wanted one of ", list));
}

void SetOption(AdapterSpec& spec, std::string_view name, std::string value) {
  const std::string full = FullName(spec, name);
  for (auto& [key, old] : spec.options) {
    if (key == full) {
      old = std::move(value);
      return;
    }
  }
  spec.options.emplace_back(full, std::move(value));
}

uint64_t PlainLoraBytes(const AdapterSpec& spec, std::span<const LinearSite> sites) {
  int64_t numbers = 0;
  for (const LinearSite& site : sites) numbers += SiteRank(spec, site) * (site.in + site.out);
  return static_cast<uint64_t>(numbers) * sizeof(float);
}

AdapterSpec ForMethod(const AdapterSpec& spec, std::string_view method) {
  AdapterSpec own = spec;
  own.method = method;
  const std::string prefix = own.method + ".";
  std::erase_if(own.options, [&](const auto& option) {
    return option.first.find('.') != std::string::npos && !option.first.starts_with(prefix);
  });
  return own;
}

}  // namespace weft
