#pragma once
// UTF-8 in and out: text from files, peers and models is made valid here once, so that everything
// behind it may decode without checks. Stateless; any thread.

#include <cstddef>
#include <string>
#include <string_view>

namespace weft {

/// True when `text` is well-formed UTF-8 (no overlong forms, no surrogates, nothing above
/// U+10FFFF).
[[nodiscard]] bool IsValidUtf8(std::string_view text);

/// `text` with each maximal ill-formed subsequence replaced by U+FFFD (Unicode 15, section 3.9,
/// "best practice"), as Python's errors="replace" does.
[[nodiscard]] std::string ReplaceBadUtf8(std::string_view text);

/// The code point at `position`, which moves behind it. `text` must be valid and `position` inside
/// it.
[[nodiscard]] char32_t NextCodePoint(std::string_view text, size_t& position);

/// Appends the UTF-8 form of a code point (not a surrogate, at most U+10FFFF).
void AppendCodePoint(char32_t code_point, std::string& out);

}  // namespace weft
