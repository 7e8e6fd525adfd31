#include "common/formats/tokenizer/byte_level.h"

#include <array>

#include "common/formats/utf8.h"

namespace weft {
namespace {

struct Alphabet {
  std::array<std::string, 256> text;     // byte → its character in UTF-8
  std::array<int16_t, 256 + 68> byte{};  // character → byte, −1 where none

  Alphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t character = itself ? static_cast<char32_t>(b) : next++;
      AppendCodePoint(character, text[b]);
      byte[character] = static_cast<int16_t>(b);
    }
  }
};

const Alphabet& TheAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

void AppendByteCharacters(std::string_view bytes, std::string& out) {
  const Alphabet& alphabet = TheAlphabet();
  for (const char byte : bytes) out += alphabet.text[static_cast<uint8_t>(byte)];
}

std::optional<uint8_t> ByteOfCharacter(char32_t character) {
  const Alphabet& alphabet = TheAlphabet();
  if (character >= alphabet.byte.size() || alphabet.byte[character] < 0) return std::nullopt;
  return static_cast<uint8_t>(alphabet.byte[character]);
}

}  // namespace weft
