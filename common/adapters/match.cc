#include "common/adapters/match.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "common/adapters/adapter.h"
#include "common/base/str.h"
#include "common/formats/path_regex.h"

namespace weft {
namespace {

constexpr std::string_view kAllLinear = "all-linear";
constexpr std::string_view kHead =
    "lm_head";  // "all-linear" leaves it out, and a classifier's head

// "q_proj" and "self_attn.q_proj" are suffixes at a dot; a full path is itself.
bool NamedBy(std::string_view name, std::string_view path) {
  if (path == name) return true;
  return path.size() > name.size() && path.ends_with(name) &&
         path[path.size() - name.size() - 1] == '.';
}

bool NamedByAny(const std::vector<std::string>& names, std::string_view path) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return NamedBy(name, path); });
}

std::string_view LastName(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

bool IsAllLinear(const AdapterSpec& spec) {
  return spec.target_regex.empty() && spec.target_modules.size() == 1 &&
         spec.target_modules[0] == kAllLinear;
}

std::string_view ExcludeRegex(const AdapterSpec& spec) {
  const std::string* const regex = FindOption(spec, kExcludeRegexOption);
  return regex == nullptr ? std::string_view() : *regex;
}

std::vector<std::string> LayerPatterns(const AdapterSpec& spec) {
  std::vector<std::string> patterns;
  std::string_view rest = spec.layers_pattern;
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    if (comma > 0) patterns.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return patterns;
}

std::string LayerPatternRegex(const std::string& pattern) {
  return "(?:^|.*?\\.)" + pattern + "\\.(?P<idx>\\d+)\\.";
}

std::string SavedModuleRegex(const std::string& module) {
  return "(^|.*\\.)" + module + "($|\\..*)";
}

Result<bool> FullMatch(std::string_view pattern, std::string_view path) {
  WEFT_TRY_ASSIGN(const PathRegex regex, PathRegex::Compile(pattern));
  return regex.FullMatch(path);
}

Result<bool> Excluded(const AdapterSpec& spec, std::string_view path) {
  if (NamedByAny(spec.exclude_modules, path)) return true;
  if (const std::string_view pattern = ExcludeRegex(spec); !pattern.empty()) {
    WEFT_TRY_ASSIGN(const bool matched, FullMatch(pattern, path));
    if (matched) return true;
  }
  for (const std::string& module : spec.modules_to_save) {
    WEFT_TRY_ASSIGN(const PathRegex regex, PathRegex::Compile(SavedModuleRegex(module)));
    WEFT_TRY_ASSIGN(const bool matched, regex.MatchStart(path));
    if (matched) return true;
  }
  return false;
}

// The number of the layer a path lies in: of the named list, or of the first numbered segment that
// follows two others.
Result<std::optional<int64_t>> LayerIndex(const AdapterSpec& spec, std::string_view path) {
  std::optional<std::string> digits;
  const std::vector<std::string> patterns = LayerPatterns(spec);
  if (patterns.empty()) {
    WEFT_TRY_ASSIGN(const PathRegex regex, PathRegex::Compile(".*?\\.[^.]*\\.(?P<idx>\\d+)\\."));
    WEFT_TRY_ASSIGN(digits, regex.MatchGroup(path, "idx"));
  }
  for (const std::string& pattern : patterns) {
    WEFT_TRY_ASSIGN(const PathRegex regex, PathRegex::Compile(LayerPatternRegex(pattern)));
    WEFT_TRY_ASSIGN(digits, regex.MatchGroup(path, "idx"));
    if (digits.has_value()) break;
  }
  std::optional<int64_t> index;
  if (!digits.has_value()) return index;
  int64_t number = 0;
  const auto [end, error] =
      std::from_chars(digits->data(), digits->data() + digits->size(), number);
  if (error == std::errc() && end == digits->data() + digits->size()) index = number;
  return index;
}

bool IsLiteral(std::string_view key) {
  return std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
  });
}

// A key without metacharacters other than the dot, which stands for any one character.
bool LiteralCovers(std::string_view key, std::string_view path) {
  if (path.size() < key.size()) return false;
  const std::string_view tail = path.substr(path.size() - key.size());
  for (size_t i = key.size(); i > 0; --i) {
    if (key[i - 1] != '.' && key[i - 1] != tail[i - 1]) return false;
  }
  return tail.size() == path.size() || path[path.size() - tail.size() - 1] == '.';
}

template <typename T>
T PatternValue(const std::vector<std::pair<std::string, T>>& patterns, std::string_view path,
               T fallback) {
  for (const auto& [key, value] : patterns) {
    if (PatternCovers(key, path)) return value;
  }
  return fallback;
}

std::string SomePaths(std::span<const LinearSite> all) {
  std::vector<std::string> names;
  for (const LinearSite& site : all) {
    std::string name(LastName(site.path));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string Targets(const AdapterSpec& spec) {
  if (!spec.target_regex.empty()) return "the expression \"" + spec.target_regex + "\"";
  std::string text;
  for (const std::string& name : spec.target_modules) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// Every name a user wrote must mean something; a misspelt one would silently train less.
Status CheckEachTargetMatches(const AdapterSpec& spec, std::span<const LinearSite> all) {
  if (!spec.target_regex.empty() || IsAllLinear(spec)) return OkStatus();
  for (const std::string& name : spec.target_modules) {
    const bool found = std::any_of(
        all.begin(), all.end(), [&](const LinearSite& site) { return NamedBy(name, site.path); });
    if (!found) {
      return InvalidArgument(Str("[adapter] target \"", name,
                                 "\" matches no linear layer; layers "
                                 "are called ",
                                 SomePaths(all), ", e.g. ", all.empty() ? "-" : all[0].path));
    }
  }
  return OkStatus();
}

}  // namespace

bool IsHeadPath(std::string_view path) {
  const std::string_view first = path.substr(0, path.find('.'));
  return first == "classifier" || first == "score";
}

Status CheckPatterns(const AdapterSpec& spec) {
  std::vector<std::string> regexes;
  if (!spec.target_regex.empty()) {
    if (!spec.layers_to_transform.empty() || !spec.layers_pattern.empty()) {
      return InvalidArgument(
          "[adapter] layers_to_transform and layers_pattern cannot be used when the targets are "
          "one regular expression; put the layers into the expression");
    }
    regexes.push_back(spec.target_regex);
  }
  if (!spec.layers_pattern.empty() && spec.layers_to_transform.empty()) {
    return InvalidArgument("[adapter] layers_pattern is given without layers_to_transform");
  }
  if (const std::string_view pattern = ExcludeRegex(spec); !pattern.empty()) {
    if (!spec.exclude_modules.empty()) {
      return InvalidArgument(
          "[adapter] exclusions are given as names and as one regular expression; PEFT knows one "
          "of the two");
    }
    regexes.emplace_back(pattern);
  }
  for (const std::string& pattern : LayerPatterns(spec)) {
    regexes.push_back(LayerPatternRegex(pattern));
  }
  for (const std::string& module : spec.modules_to_save) {
    regexes.push_back(SavedModuleRegex(module));
  }
  for (const auto& [key, rank] : spec.rank_pattern) regexes.push_back("(.*\\.)?(" + key + ")$");
  for (const auto& [key, alpha] : spec.alpha_pattern) regexes.push_back("(.*\\.)?(" + key + ")$");
  for (const std::string& regex : regexes) {
    const Result<PathRegex> compiled = PathRegex::Compile(regex);
    if (!compiled.ok()) return compiled.status().Within("[adapter]");
  }
  return OkStatus();
}

bool PatternCovers(std::string_view key, std::string_view path) {
  if (IsLiteral(key)) return LiteralCovers(key, path);
  const Result<PathRegex> regex = PathRegex::Compile("(.*\\.)?(" + std::string(key) + ")$");
  if (!regex.ok()) return false;  // CheckPatterns has named it
  const Result<bool> matched = regex->MatchStart(path);
  return matched.ok() && *matched;
}

Result<bool> Chooses(const AdapterSpec& spec, std::string_view path) {
  WEFT_TRY_ASSIGN(const bool excluded, Excluded(spec, path));
  if (excluded) return false;
  if (!spec.target_regex.empty()) return FullMatch(spec.target_regex, path);
  if (IsAllLinear(spec)) {
    if (LastName(path) == kHead || IsHeadPath(path)) return false;
  } else if (std::find(spec.target_modules.begin(), spec.target_modules.end(), path) !=
             spec.target_modules.end()) {
    return true;  // PEFT: a full path is chosen whatever the layers say
  } else if (!NamedByAny(spec.target_modules, path)) {
    return false;
  }
  if (spec.layers_to_transform.empty()) return true;
  WEFT_TRY_ASSIGN(const std::optional<int64_t> index, LayerIndex(spec, path));
  return index.has_value() &&
         std::find(spec.layers_to_transform.begin(), spec.layers_to_transform.end(), *index) !=
             spec.layers_to_transform.end();
}

Result<std::vector<LinearSite>> MatchSites(const AdapterSpec& spec,
                                           std::span<const LinearSite> all) {
  WEFT_TRY(CheckPatterns(spec));
  if (spec.target_regex.empty() && spec.target_modules.empty()) {
    return InvalidArgument("[adapter] no target modules: name layers, or \"all-linear\"");
  }
  WEFT_TRY(CheckEachTargetMatches(spec, all));
  std::vector<LinearSite> chosen;
  for (const LinearSite& site : all) {
    WEFT_TRY_ASSIGN(const bool matched, Chooses(spec, site.path));
    if (matched) chosen.push_back(site);
  }
  if (chosen.empty()) {
    return InvalidArgument(Str("[adapter] ", Targets(spec),
                               " matches no linear layer (exclusions "
                               "and layers applied); layers are called ",
                               SomePaths(all), ", e.g. ", all.empty() ? "-" : all[0].path));
  }
  return chosen;
}

int64_t RankFor(const AdapterSpec& spec, std::string_view path) {
  return PatternValue(spec.rank_pattern, path, spec.rank);
}

int64_t SiteRank(const AdapterSpec& spec, const LinearSite& site) {
  return std::min({RankFor(spec, site.path), site.in, site.out});
}

double AlphaFor(const AdapterSpec& spec, std::string_view path) {
  return PatternValue(spec.alpha_pattern, path, spec.alpha);
}

double ScalingFor(const AdapterSpec& spec, std::string_view path) {
  const auto rank = static_cast<double>(RankFor(spec, path));
  return AlphaFor(spec, path) / (spec.rslora ? std::sqrt(rank) : rank);
}

std::vector<std::string> CapRanks(AdapterSpec& spec, std::span<const LinearSite> sites) {
  std::vector<std::string> capped;
  std::vector<std::pair<std::string, int64_t>> entries;
  for (const LinearSite& site : sites) {
    const int64_t most = std::min(site.in, site.out);
    if (RankFor(spec, site.path) <= most) continue;
    capped.push_back(site.path);
    entries.emplace_back(site.path, most);
  }
  // The first pattern that covers a path wins, so the caps go before what the user wrote.
  spec.rank_pattern.insert(spec.rank_pattern.begin(), entries.begin(), entries.end());
  return capped;
}

}  // namespace weft
