// vocab.txt as the tokenizer.json that says the same, so that there is one reader.

#include <array>
#include <optional>

#include <nlohmann/json.hpp>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/tokenizer/vocabulary_files.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

using Json = nlohmann::json;

constexpr std::array kSpecial = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

// Tokens by line; of equal ones the last counts, as in transformers' reader.
Result<Json> VocabularyOf(std::string_view text) {
  Json vocabulary = Json::object();
  int64_t id = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (id > limits::kTokenIdMax) {
      return InvalidArgument(
          Str("[vocab.txt] has more than ", int64_t{limits::kTokenIdMax} + 1, " lines"));
    }
    if (!IsValidUtf8(line)) {
      return InvalidArgument(Str("[vocab.txt] line ", id + 1, " is not UTF-8"));
    }
    vocabulary[std::string(line)] = id++;
  }
  return vocabulary;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> ReadVocabularyText(std::string_view text,
                                                      const TokenizerSettings& settings) {
  WEFT_TRY_ASSIGN(const Json vocabulary, VocabularyOf(text));
  Json added = Json::array();
  for (const char* token : kSpecial) {
    const auto found = vocabulary.find(token);
    if (found == vocabulary.end()) continue;
    added.push_back({{"id", *found}, {"content", token}, {"special", true}});
  }
  for (const char* needed : {"[CLS]", "[SEP]"}) {
    if (!vocabulary.contains(needed)) {
      return InvalidArgument(Str("[vocab.txt] has no token ", needed, ": is it BERT's?"));
    }
  }
  const Json json = {
      {"added_tokens", added},
      {"normalizer", {{"type", "BertNormalizer"}, {"lowercase", settings.do_lower_case}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor",
       {{"type", "BertProcessing"},
        {"cls", {"[CLS]", vocabulary["[CLS]"]}},
        {"sep", {"[SEP]", vocabulary["[SEP]"]}}}},
      {"decoder", {{"type", "WordPiece"}}},
      {"model", {{"type", "WordPiece"}, {"unk_token", "[UNK]"}, {"vocab", vocabulary}}}};
  return ReadTokenizerJson(json.dump(), settings);
}

}  // namespace weft
