#include "common/formats/tokenizer.h"

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/tokenizer/settings.h"
#include "common/formats/tokenizer/vocabulary_files.h"

namespace weft {
namespace {

Result<std::unique_ptr<Tokenizer>> ReadVocabulary(const std::filesystem::path& folder,
                                                  const TokenizerSettings& settings) {
  const std::filesystem::path json = folder / "tokenizer.json";
  const std::filesystem::path model = folder / "tokenizer.model";
  std::error_code ignored;
  if (std::filesystem::exists(json, ignored)) {
    WEFT_TRY_ASSIGN(const std::string text, ReadWholeFile(json, limits::kJsonBytesMax));
    return ReadTokenizerJson(text, settings);
  }
  if (std::filesystem::exists(model, ignored)) {
    WEFT_TRY_ASSIGN(const std::string bytes, ReadWholeFile(model, limits::kJsonBytesMax));
    return ReadSentencePiece(bytes, settings);
  }
  return NotFound(
      "no tokenizer.json and no tokenizer.model here; name a model folder that holds one of them");
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& folder) {
  const std::string where = Str("[tokenizer] ", folder.string());
  Result<TokenizerSettings> settings = ReadTokenizerSettings(folder);
  if (!settings.ok()) return settings.status().Within(where);
  Result<std::unique_ptr<Tokenizer>> tokenizer = ReadVocabulary(folder, *settings);
  if (!tokenizer.ok()) return tokenizer.status().Within(where);
  Status finished = (*tokenizer)->Finish(*settings);
  if (!finished.ok()) return finished.Within(where);
  return tokenizer;
}

Status Tokenizer::Finish(const TokenizerSettings& settings) {
  const auto resolve = [this](std::string_view role, const std::optional<std::string>& token,
                              std::optional<int32_t> id, std::optional<int32_t>& out) -> Status {
    if (token) {
      out = TokenToId(*token);
      if (!out) {
        return InvalidArgument(Str("[tokenizer_config.json] ", role, " \"", *token,
                                   "\" is not in the vocabulary of ", vocab_size(), " tokens"));
      }
    } else if (id && !IdToToken(*id).empty()) {
      out = id;
    }
    return OkStatus();
  };
  WEFT_TRY(resolve("bos_token", settings.bos_token, settings.bos_id, bos_id_));
  WEFT_TRY(resolve("eos_token", settings.eos_token, settings.eos_id, eos_id_));
  chat_template_ = settings.chat_template;
  return OkStatus();
}

}  // namespace weft
