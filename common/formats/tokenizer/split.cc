// SplitAt: the five ways to cut a word at matches.

#include <algorithm>

#include "common/base/str.h"
#include "common/formats/tokenizer/pre_tokenizer.h"

namespace weft {
namespace {

struct Stretch {
  TextRange range;
  bool is_match;
};

// The whole of [0, size) as matches and what lies between them, without empty stretches.
std::vector<Stretch> Stretches(size_t size, const std::vector<TextRange>& matches, bool invert) {
  std::vector<Stretch> stretches;
  size_t done = 0;
  for (const TextRange& match : matches) {
    if (match.begin > done) stretches.push_back({{done, match.begin}, invert});
    if (match.end > match.begin) stretches.push_back({match, !invert});
    done = match.end;
  }
  if (done < size) stretches.push_back({{done, size}, invert});
  return stretches;
}

// A match joins the stretch before it (or, read from the right, the one after it) unless that is a
// match as well.
std::vector<TextRange> Merged(const std::vector<Stretch>& stretches, bool with_next) {
  std::vector<TextRange> parts;
  bool last_was_match = false;
  for (size_t i = 0; i < stretches.size(); ++i) {
    const Stretch& stretch = stretches[with_next ? stretches.size() - 1 - i : i];
    if (stretch.is_match && !last_was_match && !parts.empty()) {
      (with_next ? parts.back().begin : parts.back().end) =
          with_next ? stretch.range.begin : stretch.range.end;
    } else {
      parts.push_back(stretch.range);
    }
    last_was_match = stretch.is_match;
  }
  if (with_next) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<TextRange> Contiguous(const std::vector<Stretch>& stretches) {
  std::vector<TextRange> parts;
  bool last_was_match = false;
  for (const Stretch& stretch : stretches) {
    if (!parts.empty() && stretch.is_match == last_was_match) {
      parts.back().end = stretch.range.end;
    } else {
      parts.push_back(stretch.range);
    }
    last_was_match = stretch.is_match;
  }
  return parts;
}

}  // namespace

Result<SplitBehavior> ReadSplitBehavior(const JsonView& name) {
  WEFT_TRY_ASSIGN(const std::string text, name.String());
  if (text == "Removed") return SplitBehavior::kRemoved;
  if (text == "Isolated") return SplitBehavior::kIsolated;
  if (text == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (text == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (text == "Contiguous") return SplitBehavior::kContiguous;
  return name.Error(Str("unknown behavior \"", text,
                        "\"; known are Removed, Isolated, MergedWithPrevious, MergedWithNext, "
                        "Contiguous"));
}

void SplitAt(size_t size, const std::vector<TextRange>& matches, SplitBehavior behavior,
             bool invert, std::vector<TextRange>& parts) {
  const std::vector<Stretch> stretches = Stretches(size, matches, invert);
  const auto append = [&parts](const std::vector<TextRange>& more) {
    parts.insert(parts.end(), more.begin(), more.end());
  };
  switch (behavior) {
    case SplitBehavior::kMergedWithPrevious:
      return append(Merged(stretches, false));
    case SplitBehavior::kMergedWithNext:
      return append(Merged(stretches, true));
    case SplitBehavior::kContiguous:
      return append(Contiguous(stretches));
    case SplitBehavior::kRemoved:
    case SplitBehavior::kIsolated:
      for (const Stretch& stretch : stretches) {
        if (behavior == SplitBehavior::kIsolated || !stretch.is_match) {
          parts.push_back(stretch.range);
        }
      }
  }
}

}  // namespace weft
