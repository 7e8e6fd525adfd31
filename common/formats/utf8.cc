#include "common/formats/utf8.h"

#include <cstdint>

namespace weft {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

uint8_t ByteAt(std::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

// What the well-formed-byte-sequence table (Unicode 15, table 3-7) says about the bytes at a
// position: how many belong together, and whether they are a whole character. `length` is at
// least 1.
struct Sequence {
  size_t length;
  bool valid;
};

Sequence Examine(std::string_view text, size_t begin) {
  const uint8_t lead = ByteAt(text, begin);
  if (lead < 0x80) return {1, true};
  size_t want = 0;
  uint8_t low = 0x80, high = 0xBF;  // bounds of the second byte only
  if (lead >= 0xC2 && lead <= 0xDF) {
    want = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    want = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    want = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false};
  }
  for (size_t i = 1; i < want; ++i) {
    if (begin + i >= text.size()) return {i, false};
    const uint8_t byte = ByteAt(text, begin + i);
    if (byte < low || byte > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {want, true};
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Sequence sequence = Examine(text, i);
    if (!sequence.valid) return false;
    i += sequence.length;
  }
  return true;
}

std::string ReplaceBadUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Sequence sequence = Examine(text, i);
    out += sequence.valid ? text.substr(i, sequence.length) : kReplacement;
    i += sequence.length;
  }
  return out;
}

char32_t NextCodePoint(std::string_view text, size_t& position) {
  const uint8_t lead = ByteAt(text, position++);
  if (lead < 0x80) return lead;
  const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  char32_t code_point = lead & (0x3Fu >> more);
  for (int i = 0; i < more; ++i) {
    code_point = (code_point << 6) | (ByteAt(text, position++) & 0x3Fu);
  }
  return code_point;
}

void AppendCodePoint(char32_t code_point, std::string& out) {
  const auto put = [&out](char32_t byte) { out += static_cast<char>(static_cast<uint8_t>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

}  // namespace weft
