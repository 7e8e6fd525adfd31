#pragma once
// The known word nearest to one that was mistyped.

#include <string>
#include <string_view>
#include <vector>

namespace weft {

/// Single-character insertions, deletions, replacements and swaps of neighbours that turn one into
/// the other (optimal string alignment).
[[nodiscard]] size_t EditDistance(std::string_view a, std::string_view b);

/// The first of the words with the least distance; empty if there are none.
[[nodiscard]] std::string Nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace weft
