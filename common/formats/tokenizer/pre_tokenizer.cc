#include "common/formats/tokenizer/pre_tokenizer.h"

#include <functional>
#include <optional>

#include "common/base/str.h"
#include "common/formats/tokenizer/byte_level.h"
#include "common/formats/tokenizer/normalizer.h"
#include "common/formats/tokenizer/pattern.h"
#include "common/formats/tokenizer/unicode.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

// GPT-2's words (Radford et al. 2019, encoder.py), here in Oniguruma's syntax as the component
// defines it.
constexpr std::string_view kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Cuts each word where `find` says; find appends matches relative to the word.
template <typename Find>
requires std::invocable < Find, std::string_view, std::vector<TextRange>
& > void SplitWords(Words& words, SplitBehavior behavior, bool invert, const Find& find) {
  std::vector<Words::Word> out;
  out.reserve(words.list.size());
  std::vector<TextRange> matches, parts;
  for (const Words::Word& word : words.list) {
    const size_t begin = word.range.begin;
    matches.clear();
    parts.clear();
    find(std::string_view(words.text).substr(begin, word.range.end - begin), matches);
    SplitAt(word.range.end - begin, matches, behavior, invert, parts);
    for (const TextRange& part : parts) {
      out.push_back({{begin + part.begin, begin + part.end}, word.at_start && part.begin == 0});
    }
  }
  words.list = std::move(out);
}

// Writes the text anew; `rewrite` appends a word's new form.
template <typename Rewrite>
requires std::invocable<Rewrite, std::string_view, bool, std::string&>
void RewriteWords(Words& words, const Rewrite& rewrite) {
  std::string text;
  text.reserve(words.text.size() + words.text.size() / 2);
  for (Words::Word& word : words.list) {
    const size_t begin = text.size();
    rewrite(
        std::string_view(words.text).substr(word.range.begin, word.range.end - word.range.begin),
        word.at_start, text);
    word.range = {begin, text.size()};
  }
  words.text = std::move(text);
}

class Splitter final : public PreTokenizer {
 public:
  Splitter(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void Apply(Words& words) const override {
    SplitWords(words, behavior_, invert_,
               [this](std::string_view word, std::vector<TextRange>& matches) {
                 pattern_.FindAll(word, matches);
               });
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Splits at single characters of a class.
class CharacterSplitter final : public PreTokenizer {
 public:
  CharacterSplitter(std::function<bool(char32_t)> is_match, SplitBehavior behavior)
      : is_match_(std::move(is_match)), behavior_(behavior) {}
  void Apply(Words& words) const override {
    SplitWords(words, behavior_, false,
               [this](std::string_view word, std::vector<TextRange>& matches) {
                 for (size_t at = 0; at < word.size();) {
                   const size_t begin = at;
                   if (is_match_(NextCodePoint(word, at))) matches.push_back({begin, at});
                 }
               });
  }

 private:
  std::function<bool(char32_t)> is_match_;
  SplitBehavior behavior_;
};

// Words by GPT-2's pattern where asked, then each byte as its character.
class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::optional<Regex> words)
      : add_prefix_space_(add_prefix_space), words_(std::move(words)) {}
  void Apply(Words& words) const override {
    if (add_prefix_space_) {
      RewriteWords(words, [](std::string_view word, bool, std::string& out) {
        if (!word.starts_with(' ')) out += ' ';
        out += word;
      });
    }
    if (words_) {
      SplitWords(words, SplitBehavior::kIsolated, false,
                 [this](std::string_view word, std::vector<TextRange>& matches) {
                   words_->FindAll(word, matches);
                 });
    }
    RewriteWords(words, [](std::string_view word, bool, std::string& out) {
      AppendByteCharacters(word, out);
    });
  }

 private:
  bool add_prefix_space_;
  std::optional<Regex> words_;
};

// sentencepiece's way: blanks become a visible character, which starts the words.
class Metaspace final : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}
  void Apply(Words& words) const override {
    RewriteWords(words, [this](std::string_view word, bool at_start, std::string& out) {
      const bool wanted = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && at_start);
      if (wanted && !word.starts_with(' ') && !word.starts_with(replacement_)) out += replacement_;
      for (const char c : word) {
        if (c == ' ') {
          out += replacement_;
        } else {
          out += c;
        }
      }
    });
    if (!split_) return;
    SplitWords(words, SplitBehavior::kMergedWithNext, false,
               [this](std::string_view word, std::vector<TextRange>& matches) {
                 for (size_t at = word.find(replacement_); at != word.npos;
                      at = word.find(replacement_, at)) {
                   matches.push_back({at, at + replacement_.size()});
                   at += replacement_.size();
                 }
               });
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> parts) : parts_(std::move(parts)) {}
  void Apply(Words& words) const override {
    for (const auto& part : parts_) part->Apply(words);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

using Made = Result<std::unique_ptr<PreTokenizer>>;

template <typename T, typename... Args>
requires std::derived_from<T, PreTokenizer> std::unique_ptr<PreTokenizer> Make(Args&&... args) {
  return std::make_unique<T>(std::forward<Args>(args)...);
}

Made ReadByteLevel(const JsonView& json) {
  WEFT_TRY_ASSIGN(const bool add_prefix_space, json.BoolOr("add_prefix_space", true));
  WEFT_TRY_ASSIGN(const bool use_regex, json.BoolOr("use_regex", true));
  std::optional<Regex> words;
  if (use_regex) {
    WEFT_TRY_ASSIGN(words, Regex::Compile(kGpt2Words));
  }
  return Make<ByteLevel>(add_prefix_space, std::move(words));
}

Made ReadSplit(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView source, json.At("pattern"));
  WEFT_TRY_ASSIGN(Pattern pattern, Pattern::Read(source));
  WEFT_TRY_ASSIGN(const JsonView name, json.At("behavior"));
  WEFT_TRY_ASSIGN(const SplitBehavior behavior, ReadSplitBehavior(name));
  WEFT_TRY_ASSIGN(const bool invert, json.BoolOr("invert", false));
  return Make<Splitter>(std::move(pattern), behavior, invert);
}

Made ReadMetaspace(const JsonView& json) {
  WEFT_TRY_ASSIGN(std::string replacement, json.StringOr("replacement", "\u2581"));
  if (replacement.empty()) return json.Error("replacement is empty, wanted one character");
  WEFT_TRY_ASSIGN(const bool split, json.BoolOr("split", true));
  // Files from before prepend_scheme say add_prefix_space instead.
  WEFT_TRY_ASSIGN(const bool add_prefix_space, json.BoolOr("add_prefix_space", true));
  WEFT_TRY_ASSIGN(const std::string scheme,
                  json.StringOr("prepend_scheme", add_prefix_space ? "always" : "never"));
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return json.Error(Str("prepend_scheme is \"", scheme, "\", wanted always, first or never"));
  }
  const auto prepend = scheme == "always"  ? Metaspace::Prepend::kAlways
                       : scheme == "first" ? Metaspace::Prepend::kFirst
                                           : Metaspace::Prepend::kNever;
  return Make<Metaspace>(std::move(replacement), prepend, split);
}

Made ReadPunctuation(const JsonView& json) {
  SplitBehavior behavior = SplitBehavior::kIsolated;
  if (const auto name = json.Find("behavior")) {
    WEFT_TRY_ASSIGN(behavior, ReadSplitBehavior(*name));
  }
  return Make<CharacterSplitter>(IsPunctuation, behavior);
}

Made ReadDelimiter(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView member, json.At("delimiter"));
  WEFT_TRY_ASSIGN(const std::string text, member.String());
  size_t at = 0;
  const char32_t delimiter = text.empty() ? 0 : NextCodePoint(text, at);
  if (text.empty() || at != text.size()) return member.Error("wanted one character");
  return Make<CharacterSplitter>([delimiter](char32_t c) { return c == delimiter; },
                                 SplitBehavior::kRemoved);
}

// Runs of word characters, and runs of what is neither word nor white space.
void FindWordRuns(std::string_view text, std::vector<TextRange>& runs) {
  enum class Kind { kBlank, kWord, kOther };
  Kind last = Kind::kBlank;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = NextCodePoint(text, at);
    const Kind kind = IsWordCharacter(c) ? Kind::kWord
                      : IsWhitespace(c)  ? Kind::kBlank
                                         : Kind::kOther;
    if (kind != Kind::kBlank) {
      if (kind == last) {
        runs.back().end = at;
      } else {
        runs.push_back({begin, at});
      }
    }
    last = kind;
  }
}

class WordRuns final : public PreTokenizer {
 public:
  void Apply(Words& words) const override {
    // Two runs may touch ("a!"), so they are taken as isolated matches and the blanks between them
    // as empty words.
    std::vector<Words::Word> out;
    std::vector<TextRange> runs;
    for (const Words::Word& word : words.list) {
      const size_t begin = word.range.begin;
      runs.clear();
      FindWordRuns(std::string_view(words.text).substr(begin, word.range.end - begin), runs);
      for (const TextRange& run : runs) {
        out.push_back({{begin + run.begin, begin + run.end}, word.at_start && run.begin == 0});
      }
    }
    words.list = std::move(out);
  }
};

Made ReadSequence(const JsonView& json, int depth) {
  if (depth >= kComponentDepthMax) return json.Error("Sequences are nested too deeply");
  WEFT_TRY_ASSIGN(const JsonView list, json.At("pretokenizers"));
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, list.Items());
  std::vector<std::unique_ptr<PreTokenizer>> parts;
  for (const JsonView& item : items) {
    WEFT_TRY_ASSIGN(auto part, ReadPreTokenizer(item, depth + 1));
    parts.push_back(std::move(part));
  }
  return Make<Sequence>(std::move(parts));
}

}  // namespace

Result<std::unique_ptr<PreTokenizer>> ReadPreTokenizer(const JsonView& json, int depth) {
  WEFT_TRY_ASSIGN(const JsonView member, json.At("type"));
  WEFT_TRY_ASSIGN(const std::string type, member.String());
  if (type == "Sequence") return ReadSequence(json, depth);
  if (type == "ByteLevel") return ReadByteLevel(json);
  if (type == "Split") return ReadSplit(json);
  if (type == "Metaspace") return ReadMetaspace(json);
  if (type == "Punctuation") return ReadPunctuation(json);
  if (type == "CharDelimiterSplit") return ReadDelimiter(json);
  if (type == "Whitespace") return Make<WordRuns>();
  if (type == "WhitespaceSplit") {
    return Make<CharacterSplitter>(IsWhitespace, SplitBehavior::kRemoved);
  }
  if (type == "BertPreTokenizer") {
    std::vector<std::unique_ptr<PreTokenizer>> parts;
    parts.push_back(Make<CharacterSplitter>(IsWhitespace, SplitBehavior::kRemoved));
    parts.push_back(Make<CharacterSplitter>(IsPunctuation, SplitBehavior::kIsolated));
    return Make<Sequence>(std::move(parts));
  }
  if (type == "Digits") {
    WEFT_TRY_ASSIGN(const bool individual, json.BoolOr("individual_digits", false));
    return Make<CharacterSplitter>(
        IsNumeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  return member.Error(Str("unknown pre-tokenizer \"", type,
                          "\"; known are Sequence, ByteLevel, Split, Metaspace, Punctuation, "
                          "CharDelimiterSplit, Whitespace, WhitespaceSplit, BertPreTokenizer, "
                          "Digits"));
}

}  // namespace weft
