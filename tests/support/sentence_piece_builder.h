#pragma once
// A small sentencepiece model (a protobuf, sentencepiece_model.proto), written field by field.

#include <cstdint>
#include <cstring>
#include <string>

namespace weft::testing::sentence_piece {

inline std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(static_cast<uint8_t>(value | 0x80));
  return out + static_cast<char>(value);
}

inline std::string Number(uint64_t field, uint64_t value) {
  return Varint(field << 3) + Varint(value);
}

inline std::string Bytes(uint64_t field, const std::string& bytes) {
  return Varint((field << 3) | 2) + Varint(bytes.size()) + bytes;
}

inline constexpr uint64_t kNormal = 1, kUnknown = 2, kControl = 3;

inline std::string Piece(const std::string& text, float score, uint64_t type) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return Bytes(1, Bytes(1, text) + Varint((2 << 3) | 5) + bits + Number(3, type));
}

// A BPE model: <unk>, <s>, </s>, then tokens of which the better score merges first.
inline std::string Model(const std::string& charsmap = "", bool dummy_prefix = true) {
  std::string model =
      Piece("<unk>", 0, kUnknown) + Piece("<s>", 0, kControl) + Piece("</s>", 0, kControl);
  float score = 0;
  for (const char* text : {"▁a", "ab", "▁ab", "▁", "a", "b"})
    model += Piece(text, score--, kNormal);
  const std::string trainer = Number(3, 2);  // model_type: BPE
  std::string normalizer = Bytes(1, "identity");
  if (!charsmap.empty()) normalizer += Bytes(2, charsmap);
  normalizer += Number(3, dummy_prefix ? 1 : 0) + Number(4, 0) + Number(5, 1);
  return model + Bytes(2, trainer) + Bytes(3, normalizer);
}

inline std::string Unit(uint32_t value) {
  std::string out;
  for (int i = 0; i < 4; ++i) out += static_cast<char>(static_cast<uint8_t>(value >> (8 * i)));
  return out;
}

// One block of a double array: unit 0 leads to place 1, everything else is `rest`.
inline std::string Charsmap(uint32_t rest, const std::string& texts) {
  std::string trie = Unit(1 << 10);
  for (int i = 1; i < 256; ++i) trie += Unit(rest);
  return Unit(static_cast<uint32_t>(trie.size())) + trie + texts;
}

}  // namespace weft::testing::sentence_piece
