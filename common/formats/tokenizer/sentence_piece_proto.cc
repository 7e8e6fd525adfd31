#include "common/formats/tokenizer/sentence_piece_proto.h"

#include <cstring>
#include <optional>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

Status Bad(std::string_view what) {
  return InvalidArgument(Str("[tokenizer.model] is no sentencepiece model: ", what));
}

// One field of a protobuf message (encoding: protobuf.dev/programming-guides/encoding).
struct Field {
  uint64_t number = 0;
  uint64_t wire_type = 0;
  uint64_t value = 0;      // wire type 0
  std::string_view bytes;  // wire type 2

  // Fields of another wire type are ones that the library does not know.
  [[nodiscard]] bool IsBytes(uint64_t wanted) const { return number == wanted && wire_type == 2; }
  [[nodiscard]] bool IsNumber(uint64_t wanted) const { return number == wanted && wire_type == 0; }
  // As the library reads enumerations: their low 32 bits, and numbers it does not know are none.
  void ReadEnum(uint64_t wanted, uint32_t max, uint32_t& target) const {
    const auto low = static_cast<uint32_t>(value);
    if (IsNumber(wanted) && low >= 1 && low <= max) target = low;
  }
};

// Walks the fields of a message; Next is false at the end and where the bytes are malformed (then
// !ok).
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}
  [[nodiscard]] bool ok() const { return ok_; }

  bool Next(Field& field) {
    if (rest_.empty() || !ok_) return false;
    uint64_t tag = 0;
    if (!Varint(tag)) return Fail();
    field = {.number = tag >> 3, .wire_type = tag & 7, .value = 0, .bytes = {}};
    switch (tag & 7) {
      case 0:
        return Varint(field.value) || Fail();
      case 1:
        return Skip(8) || Fail();
      case 2: {
        uint64_t length = 0;
        if (!Varint(length) || length > rest_.size()) return Fail();
        field.bytes = rest_.substr(0, length);
        return Skip(length);
      }
      case 5:
        return Skip(4) || Fail();
      default:
        return Fail();
    }
  }

 private:
  bool Fail() { return ok_ = false; }

  bool Skip(uint64_t bytes) {
    if (bytes > rest_.size()) return false;
    rest_.remove_prefix(bytes);
    return true;
  }

  bool Varint(uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  std::string_view rest_;
  bool ok_ = true;
};

uint32_t LittleEndian32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (unsigned i = 0; i < 4; ++i) {
    value |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[at + i])) << (8 * i);
  }
  return value;
}

// A precompiled_charsmap is a length, a double-array trie of 32-bit units (Darts-clone) and
// NUL-terminated texts that the trie's values point to. The library follows all of these without
// looking, so every step is bounded here: from unit i the walk goes to the 256 units around i ^
// offset, and a leaf's value is a place in the texts.
Status CheckCharsmap(std::string_view map) {
  if (map.empty()) return OkStatus();
  if (map.size() < 8) return Bad("its character map is truncated");
  const size_t trie_bytes = LittleEndian32(map, 0);
  if (trie_bytes < 4 || trie_bytes % 4 != 0 || trie_bytes >= map.size() - 4) {
    return Bad(Str("its character map of ", map.size(), " bytes says its trie has ", trie_bytes));
  }
  const std::string_view trie = map.substr(4, trie_bytes);
  const std::string_view texts = map.substr(4 + trie_bytes);
  if (texts.back() != '\0' || !IsValidUtf8(texts)) return Bad("its character map's texts are bad");
  const size_t units = trie_bytes / 4;
  for (size_t i = 0; i < units; ++i) {
    const uint32_t unit = LittleEndian32(trie, 4 * i);
    if ((unit >> 31) != 0) continue;  // a leaf's value: no step leads on from it
    const size_t base = i ^ (size_t{unit >> 10} << ((unit & (1u << 9)) >> 6));
    const bool has_leaf = ((unit >> 8) & 1) != 0;
    if ((base | 0xFF) >= units)
      return Bad(Str("its character map's trie leaves its bounds at ", i));
    if (has_leaf && (LittleEndian32(trie, 4 * base) & 0x7FFFFFFF) >= texts.size()) {
      return Bad(Str("its character map's trie points outside its texts at ", i));
    }
  }
  return OkStatus();
}

Result<SentencePieceFacts::Piece> ReadPiece(std::string_view bytes) {
  SentencePieceFacts::Piece piece;
  Fields fields(bytes);
  for (Field field; fields.Next(field);) {
    if (field.IsBytes(1)) piece.text = field.bytes;
    field.ReadEnum(3, SentencePieceFacts::kTypeMax, piece.type);
  }
  if (!fields.ok()) return Bad("a piece is malformed");
  if (!IsValidUtf8(piece.text)) return Bad("a piece is not UTF-8");
  return piece;
}

// NormalizerSpec, of both directions.
Status ReadNormalizerSpec(std::string_view bytes, std::optional<bool>& add_dummy_prefix) {
  Fields fields(bytes);
  for (Field field; fields.Next(field);) {
    if (field.IsBytes(2)) WEFT_TRY(CheckCharsmap(field.bytes));
    if (field.IsNumber(3)) add_dummy_prefix = field.value != 0;
  }
  return fields.ok() ? OkStatus() : Bad("its normalizer is malformed");
}

// TrainerSpec; of it the kind of the model.
constexpr uint32_t kUnigram = 1, kModelTypeMax = 4;

Status ReadModelType(std::string_view bytes, uint32_t& type) {
  Fields fields(bytes);
  for (Field field; fields.Next(field);) field.ReadEnum(3, kModelTypeMax, type);
  return fields.ok() ? OkStatus() : Bad("its trainer's settings are malformed");
}

// A control token stands for no text, so one that is a character (or a word, in a model of words)
// leaves the library unable to encode texts that hold it. Unigram models look for it elsewhere.
Status CheckControls(const SentencePieceFacts& facts) {
  for (size_t id = 0; id < facts.pieces.size(); ++id) {
    const auto& [text, type] = facts.pieces[id];
    if (type != SentencePieceFacts::kControl || text.empty()) continue;
    size_t first_end = 0;
    (void)NextCodePoint(text, first_end);
    if (first_end == text.size() || text.starts_with("▁")) {
      return Bad(Str("its control token ", id, " is \"", text, "\", which is text"));
    }
  }
  return OkStatus();
}

}  // namespace

Result<SentencePieceFacts> ExamineSentencePieceModel(std::string_view bytes) {
  SentencePieceFacts facts;
  std::optional<bool> add_dummy_prefix, unused;
  uint32_t model_type = kUnigram;
  Fields fields(bytes);
  for (Field field; fields.Next(field);) {
    if (field.IsBytes(1)) {
      if (facts.pieces.size() > static_cast<size_t>(limits::kTokenIdMax)) {
        return Bad(Str("more than ", limits::kTokenIdMax, " pieces"));
      }
      WEFT_TRY_ASSIGN(SentencePieceFacts::Piece piece, ReadPiece(field.bytes));
      facts.pieces.push_back(std::move(piece));
    } else if (field.IsBytes(2)) {
      WEFT_TRY(ReadModelType(field.bytes, model_type));
    } else if (field.IsBytes(3)) {
      WEFT_TRY(ReadNormalizerSpec(field.bytes, add_dummy_prefix));
    } else if (field.IsBytes(5)) {
      WEFT_TRY(ReadNormalizerSpec(field.bytes, unused));
    }
  }
  if (!fields.ok()) return Bad(Str("truncated or damaged (", bytes.size(), " bytes)"));
  if (facts.pieces.empty()) return Bad("no pieces");
  if (model_type != kUnigram) WEFT_TRY(CheckControls(facts));
  facts.add_dummy_prefix = add_dummy_prefix.value_or(true);
  return facts;
}

}  // namespace weft
