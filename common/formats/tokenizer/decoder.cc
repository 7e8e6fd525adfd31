#include "common/formats/tokenizer/decoder.h"

#include <functional>
#include <optional>
#include <utility>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/tokenizer/byte_level.h"
#include "common/formats/tokenizer/normalizer.h"
#include "common/formats/tokenizer/pattern.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

constexpr std::string_view kMetaspace = "\u2581";

using Pieces = std::vector<std::string>;

// A decoder that is one function.
class Simple final : public Decoder {
 public:
  explicit Simple(std::function<void(Pieces&)> apply) : apply_(std::move(apply)) {}
  void Apply(Pieces& pieces) const override { apply_(pieces); }

 private:
  std::function<void(Pieces&)> apply_;
};

std::unique_ptr<Decoder> Make(std::function<void(Pieces&)> apply) {
  return std::make_unique<Simple>(std::move(apply));
}

std::string ReplaceEach(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  if (!from.empty()) {
    for (size_t at = text.find(from); at != text.npos; at = text.find(from, done)) {
      out += text.substr(done, at - done);
      out += to;
      done = at + from.size();
    }
  }
  out += text.substr(done);
  return out;
}

void Fuse(Pieces& pieces) {
  std::string all;
  for (const std::string& piece : pieces) all += piece;
  pieces.assign(1, std::move(all));
}

// All bytes of a token, or nothing where one of its characters is outside the byte alphabet (an
// added token's).
std::optional<std::string> BytesOf(std::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const auto byte = ByteOfCharacter(NextCodePoint(token, at));
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
  }
  return bytes;
}

void ByteLevel(Pieces& pieces) {
  std::string bytes;
  for (const std::string& piece : pieces) bytes += BytesOf(piece).value_or(piece);
  pieces.assign(1, ReplaceBadUtf8(bytes));
}

// The byte that <0xNN> stands for.
std::optional<char> FallbackByte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = 16 * value + digit;
  }
  return static_cast<char>(static_cast<uint8_t>(value));
}

// Runs of byte tokens become their text; a run that is no UTF-8 becomes one U+FFFD for each byte.
void ByteFallback(Pieces& pieces) {
  Pieces out;
  std::string bytes;
  const auto flush = [&out, &bytes] {
    if (bytes.empty()) return;
    if (IsValidUtf8(bytes)) {
      out.push_back(bytes);
    } else {
      out.push_back(ReplaceEach(std::string(bytes.size(), '?'), "?", "\uFFFD"));
    }
    bytes.clear();
  };
  for (std::string& piece : pieces) {
    if (const auto byte = FallbackByte(piece)) {
      bytes += *byte;
    } else {
      flush();
      out.push_back(std::move(piece));
    }
  }
  flush();
  pieces = std::move(out);
}

// Up to `start` times `content` at each piece's front and up to `stop` times at its end.
void StripEach(Pieces& pieces, std::string_view content, int32_t start, int32_t stop) {
  for (std::string& piece : pieces) {
    std::string_view rest = piece;
    for (int32_t i = 0; i < start && rest.starts_with(content); ++i) {
      rest.remove_prefix(content.size());
    }
    for (int32_t i = 0; i < stop && rest.ends_with(content); ++i) {
      rest.remove_suffix(content.size());
    }
    piece = std::string(rest);
  }
}

// The blank that the first word was given is left out, unless the pre-tokenizer gave none.
void MetaspaceEach(Pieces& pieces, std::string_view replacement, bool was_prepended) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    pieces[i] = ReplaceEach(pieces[i], replacement, i == 0 && was_prepended ? "" : " ");
  }
}

// Blanks before punctuation and inside English contractions, which word pieces leave, are closed
// up.
void CleanUp(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kClosings[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kClosings) text = ReplaceEach(text, from, to);
}

void WordPieceEach(Pieces& pieces, std::string_view prefix, bool cleanup) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i > 0) {
      const bool continues = pieces[i].starts_with(prefix);
      pieces[i] = continues ? pieces[i].substr(prefix.size()) : " " + pieces[i];
    }
    if (cleanup) CleanUp(pieces[i]);
  }
}

using Made = Result<std::unique_ptr<Decoder>>;

Made ReadReplace(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView source, json.At("pattern"));
  WEFT_TRY_ASSIGN(Pattern read, Pattern::Read(source));
  WEFT_TRY_ASSIGN(const JsonView into, json.At("content"));
  WEFT_TRY_ASSIGN(const std::string content, into.String());
  auto pattern = std::make_shared<const Pattern>(std::move(read));
  return Make([pattern, content](Pieces& pieces) {
    for (std::string& piece : pieces) piece = pattern->ReplaceAll(piece, content);
  });
}

Result<int32_t> CountOr(const JsonView& json, std::string_view key, int32_t fallback) {
  const auto member = json.Find(key);
  return member ? member->Count(1 << 20) : fallback;
}

Made ReadStrip(const JsonView& json) {
  WEFT_TRY_ASSIGN(const std::string content, json.StringOr("content", " "));
  if (content.empty()) return json.Error("content is empty, wanted one character");
  WEFT_TRY_ASSIGN(const int32_t start, CountOr(json, "start", 0));
  WEFT_TRY_ASSIGN(const int32_t stop, CountOr(json, "stop", 0));
  return Make([content, start, stop](Pieces& pieces) { StripEach(pieces, content, start, stop); });
}

Made ReadMetaspace(const JsonView& json) {
  WEFT_TRY_ASSIGN(const std::string replacement,
                  json.StringOr("replacement", std::string(kMetaspace)));
  WEFT_TRY_ASSIGN(const bool add_prefix_space, json.BoolOr("add_prefix_space", true));
  WEFT_TRY_ASSIGN(const std::string scheme,
                  json.StringOr("prepend_scheme", add_prefix_space ? "always" : "never"));
  const bool prepended = scheme != "never";
  return Make(
      [replacement, prepended](Pieces& pieces) { MetaspaceEach(pieces, replacement, prepended); });
}

Made ReadBpe(const JsonView& json) {
  WEFT_TRY_ASSIGN(const std::string suffix, json.StringOr("suffix", "</w>"));
  return Make([suffix](Pieces& pieces) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      pieces[i] = ReplaceEach(pieces[i], suffix, i + 1 == pieces.size() ? "" : " ");
    }
  });
}

Made ReadWordPiece(const JsonView& json) {
  WEFT_TRY_ASSIGN(const std::string prefix, json.StringOr("prefix", "##"));
  WEFT_TRY_ASSIGN(const bool cleanup, json.BoolOr("cleanup", true));
  return Make([prefix, cleanup](Pieces& pieces) { WordPieceEach(pieces, prefix, cleanup); });
}

std::unique_ptr<Decoder> MakeSequence(std::vector<std::shared_ptr<const Decoder>> parts) {
  return Make([parts = std::move(parts)](Pieces& pieces) {
    for (const auto& part : parts) part->Apply(pieces);
  });
}

Made ReadSequence(const JsonView& json, int depth) {
  if (depth >= kComponentDepthMax) return json.Error("Sequences are nested too deeply");
  WEFT_TRY_ASSIGN(const JsonView list, json.At("decoders"));
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, list.Items());
  std::vector<std::shared_ptr<const Decoder>> parts;
  for (const JsonView& item : items) {
    WEFT_TRY_ASSIGN(auto part, ReadDecoder(item, depth + 1));
    parts.push_back(std::move(part));
  }
  return MakeSequence(std::move(parts));
}

}  // namespace

std::unique_ptr<Decoder> SentencePieceDecoder(bool strip_first) {
  std::vector<std::shared_ptr<const Decoder>> parts;
  parts.push_back(Make([](Pieces& pieces) {
    for (std::string& piece : pieces) piece = ReplaceEach(piece, kMetaspace, " ");
  }));
  parts.push_back(Make(ByteFallback));
  parts.push_back(Make(Fuse));
  if (strip_first) {
    parts.push_back(Make([](Pieces& pieces) { StripEach(pieces, " ", 1, 0); }));
  }
  return MakeSequence(std::move(parts));
}

Result<std::unique_ptr<Decoder>> ReadDecoder(const JsonView& json, int depth) {
  WEFT_TRY_ASSIGN(const JsonView member, json.At("type"));
  WEFT_TRY_ASSIGN(const std::string type, member.String());
  if (type == "Sequence") return ReadSequence(json, depth);
  if (type == "ByteLevel") return Make(ByteLevel);
  if (type == "ByteFallback") return Make(ByteFallback);
  if (type == "Fuse") return Make(Fuse);
  if (type == "Replace") return ReadReplace(json);
  if (type == "Strip") return ReadStrip(json);
  if (type == "Metaspace") return ReadMetaspace(json);
  if (type == "BPEDecoder") return ReadBpe(json);
  if (type == "WordPiece") return ReadWordPiece(json);
  return member.Error(Str("unknown decoder \"", type,
                          "\"; known are Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, "
                          "Metaspace, BPEDecoder, WordPiece"));
}

}  // namespace weft
