#pragma once
// The byte alphabet of GPT-2 (Radford et al. 2019): each byte has one printable character, so that
// any bytes can be written as text. Printable ASCII and Latin-1 stand for themselves, the other 68
// bytes for U+0100 and up, in order.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace weft {

/// Appends the characters of `bytes`.
void AppendByteCharacters(std::string_view bytes, std::string& out);

/// The byte that a character stands for.
[[nodiscard]] std::optional<uint8_t> ByteOfCharacter(char32_t character);

}  // namespace weft
