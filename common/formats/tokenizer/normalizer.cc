#include "common/formats/tokenizer/normalizer.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <vector>

#include <utf8proc.h>

#include "common/base/str.h"
#include "common/formats/tokenizer/byte_level.h"
#include "common/formats/tokenizer/pattern.h"
#include "common/formats/tokenizer/unicode.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

bool IsAscii(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

// A normalizer that is one function.
class Simple final : public Normalizer {
 public:
  explicit Simple(std::function<void(std::string&)> apply) : apply_(std::move(apply)) {}
  void Apply(std::string& text) const override { apply_(text); }

 private:
  std::function<void(std::string&)> apply_;
};

std::unique_ptr<Normalizer> Make(std::function<void(std::string&)> apply) {
  return std::make_unique<Simple>(std::move(apply));
}

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  void Apply(std::string& text) const override {
    for (const auto& part : parts_) part->Apply(text);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

// NFC, NFD, NFKC, NFKD (Unicode Standard Annex 15). ASCII is its own form in all four.
std::unique_ptr<Normalizer> UnicodeForm(int options) {
  return Make([options](std::string& text) {
    if (IsAscii(text)) return;
    utf8proc_uint8_t* mapped = nullptr;
    const utf8proc_ssize_t length =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                     static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                     static_cast<utf8proc_option_t>(UTF8PROC_STABLE | options));
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
    if (length >= 0)
      text.assign(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
  });
}

template <typename Map>
requires std::invocable<Map, char32_t, std::string&>
void MapCodePoints(std::string& text, Map map) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) map(NextCodePoint(text, at), out);
  text = std::move(out);
}

void Lowercase(std::string& text) {
  MapCodePoints(text, [](char32_t c, std::string& out) {
    if (c ==
        0x130) {  // İ is the one letter whose lower case is two code points (SpecialCasing.txt)
      out += "i\xCC\x87";
    } else {
      AppendCodePoint(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))),
                      out);
    }
  });
}

void StripAccents(std::string& text) {
  if (IsAscii(text)) return;
  MapCodePoints(text, [](char32_t c, std::string& out) {
    if (!IsMark(c)) AppendCodePoint(c, out);
  });
}

// sentencepiece's nmt rule: control characters vanish, every kind of blank becomes a space.
void Nmt(std::string& text) {
  MapCodePoints(text, [](char32_t c, std::string& out) {
    const bool vanishes = (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) ||
                          c == 0x7F || c == 0x8F || c == 0x9F;
    const bool blank = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    if (!vanishes) AppendCodePoint(blank ? U' ' : c, out);
  });
}

// What BERT's own code calls Chinese: the blocks of CJK unified and compatibility ideographs. The
// last extension begins at 2B920 here, as in the tokenizers library (2B820 in the standard).
bool IsIdeograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

// Control characters vanish, every kind of blank becomes a space.
void CleanText(std::string& text) {
  MapCodePoints(text, [](char32_t c, std::string& out) {
    const bool blank = c == 0x9 || c == 0xA || c == 0xD;
    if (c == 0 || c == 0xFFFD || (!blank && IsControl(c))) return;
    AppendCodePoint(blank || IsWhitespace(c) ? U' ' : c, out);
  });
}

void SetIdeographsApart(std::string& text) {
  if (IsAscii(text)) return;
  MapCodePoints(text, [](char32_t c, std::string& out) {
    if (!IsIdeograph(c)) return AppendCodePoint(c, out);
    out += ' ';
    AppendCodePoint(c, out);
    out += ' ';
  });
}

void StripNonspacingMarks(std::string& text) {
  if (IsAscii(text)) return;
  MapCodePoints(text, [](char32_t c, std::string& out) {
    if (!IsNonspacingMark(c)) AppendCodePoint(c, out);
  });
}

// BERT's basic tokenizer up to the cut into words (Devlin et al. 2019, tokenization.py).
Result<std::unique_ptr<Normalizer>> ReadBert(const JsonView& json) {
  WEFT_TRY_ASSIGN(const bool clean, json.BoolOr("clean_text", true));
  WEFT_TRY_ASSIGN(const bool ideographs, json.BoolOr("handle_chinese_chars", true));
  WEFT_TRY_ASSIGN(const bool lowercase, json.BoolOr("lowercase", true));
  WEFT_TRY_ASSIGN(const bool strip_accents, json.BoolOr("strip_accents", lowercase));
  std::vector<std::unique_ptr<Normalizer>> parts;
  if (clean) parts.push_back(Make(CleanText));
  if (ideographs) parts.push_back(Make(SetIdeographsApart));
  if (strip_accents) {
    parts.push_back(UnicodeForm(UTF8PROC_DECOMPOSE));
    parts.push_back(Make(StripNonspacingMarks));
  }
  if (lowercase) parts.push_back(Make(Lowercase));
  std::unique_ptr<Normalizer> sequence = std::make_unique<Sequence>(std::move(parts));
  return sequence;
}

Result<std::unique_ptr<Normalizer>> ReadStrip(const JsonView& json) {
  WEFT_TRY_ASSIGN(const bool left, json.BoolOr("strip_left", true));
  WEFT_TRY_ASSIGN(const bool right, json.BoolOr("strip_right", true));
  return Make([left, right](std::string& text) {
    size_t begin = text.size(), end = 0;  // around everything that is no whitespace
    for (size_t at = 0; at < text.size();) {
      const size_t here = at;
      if (IsWhitespace(NextCodePoint(text, at))) continue;
      begin = std::min(begin, here);
      end = at;
    }
    if (!left) begin = 0;
    if (!right) end = text.size();
    text = begin < end ? text.substr(begin, end - begin) : "";
  });
}

Result<std::unique_ptr<Normalizer>> ReadReplace(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView source, json.At("pattern"));
  WEFT_TRY_ASSIGN(Pattern read, Pattern::Read(source));
  WEFT_TRY_ASSIGN(const JsonView into, json.At("content"));
  WEFT_TRY_ASSIGN(std::string content, into.String());
  auto pattern = std::make_shared<const Pattern>(std::move(read));
  return Make([pattern, content](std::string& text) { text = pattern->ReplaceAll(text, content); });
}

Result<std::unique_ptr<Normalizer>> ReadPrepend(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView member, json.At("prepend"));
  WEFT_TRY_ASSIGN(std::string prefix, member.String());
  return Make([prefix](std::string& text) {
    if (!text.empty()) text.insert(0, prefix);
  });
}

Result<std::unique_ptr<Normalizer>> ReadSequence(const JsonView& json, int depth) {
  if (depth >= kComponentDepthMax) return json.Error("Sequences are nested too deeply");
  WEFT_TRY_ASSIGN(const JsonView list, json.At("normalizers"));
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, list.Items());
  std::vector<std::unique_ptr<Normalizer>> parts;
  for (const JsonView& item : items) {
    WEFT_TRY_ASSIGN(auto part, ReadNormalizer(item, depth + 1));
    parts.push_back(std::move(part));
  }
  std::unique_ptr<Normalizer> sequence = std::make_unique<Sequence>(std::move(parts));
  return sequence;
}

}  // namespace

Result<std::unique_ptr<Normalizer>> ReadNormalizer(const JsonView& json, int depth) {
  WEFT_TRY_ASSIGN(const JsonView member, json.At("type"));
  WEFT_TRY_ASSIGN(const std::string type, member.String());
  if (type == "Sequence") return ReadSequence(json, depth);
  if (type == "NFC") return UnicodeForm(UTF8PROC_COMPOSE);
  if (type == "NFD") return UnicodeForm(UTF8PROC_DECOMPOSE);
  if (type == "NFKC") return UnicodeForm(UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
  if (type == "NFKD") return UnicodeForm(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  if (type == "Lowercase") return Make(Lowercase);
  if (type == "StripAccents") return Make(StripAccents);
  if (type == "Nmt") return Make(Nmt);
  if (type == "Strip") return ReadStrip(json);
  if (type == "Replace") return ReadReplace(json);
  if (type == "Prepend") return ReadPrepend(json);
  if (type == "BertNormalizer") return ReadBert(json);
  if (type == "ByteLevel") {
    return Make([](std::string& text) {
      std::string out;
      AppendByteCharacters(text, out);
      text = std::move(out);
    });
  }
  return member.Error(
      Str("unknown normalizer \"", type,
          "\"; known are Sequence, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Nmt, "
          "Strip, Replace, Prepend, BertNormalizer, ByteLevel"));
}

}  // namespace weft
