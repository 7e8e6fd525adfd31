#include "common/formats/tokenizer.h"

#include <utility>

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/crypto/digest.h"
#include "common/formats/file_io.h"
#include "common/formats/tokenizer/settings.h"
#include "common/formats/tokenizer/vocabulary_files.h"

namespace weft {
namespace {

// The file that holds the vocabulary, and what it is.
enum class FileKind { kJson, kSentencePiece, kText };
struct VocabularyFile {
  std::string bytes;
  FileKind kind;
};

Result<VocabularyFile> ReadVocabularyFile(const std::filesystem::path& folder) {
  for (const auto& [name, kind] : {std::pair("tokenizer.json", FileKind::kJson),
                                   std::pair("tokenizer.model", FileKind::kSentencePiece),
                                   std::pair("vocab.txt", FileKind::kText)}) {
    Result<std::string> bytes = ReadFile(folder / name, limits::kJsonBytesMax);
    if (bytes.ok()) return VocabularyFile{std::move(bytes).value(), kind};
    if (bytes.status().code() != Code::kNotFound) return bytes.status();
  }
  return NotFound(
      "no tokenizer.json, tokenizer.model or vocab.txt here; name a model folder that holds one of "
      "them");
}

// SHA-256 of everything that decides ids. Lengths stand before texts, so that no two settings run
// together.
std::string FingerprintOf(const VocabularyFile& file, const TokenizerSettings& settings) {
  Sha256 sha;
  const auto add = [&sha](std::string_view text) {
    sha.Update(AsBytes(Str(text.size(), ":")));
    sha.Update(AsBytes(text));
  };
  add(file.bytes);
  for (const AddedToken& token : settings.added) {
    add(token.content);
    add(Str(token.id, token.special, token.lstrip, token.rstrip, token.single_word,
            token.normalized));
  }
  for (const std::string& token : settings.special_tokens) add(token);
  if (file.kind == FileKind::kText) add(Str("lower case ", settings.do_lower_case));
  if (file.kind == FileKind::kSentencePiece) {
    add(Str(settings.add_bos, settings.add_eos));
    add(settings.bos_token.value_or(""));
    add(settings.eos_token.value_or(""));
  }
  return sha.FinishHex();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& folder) {
  const std::string where = Str("[tokenizer] ", folder.string());
  Result<TokenizerSettings> settings = ReadTokenizerSettings(folder);
  if (!settings.ok()) return settings.status().Within(where);
  Result<VocabularyFile> file = ReadVocabularyFile(folder);
  if (!file.ok()) return file.status().Within(where);
  const auto read = file->kind == FileKind::kJson            ? ReadTokenizerJson
                    : file->kind == FileKind::kSentencePiece ? ReadSentencePiece
                                                             : ReadVocabularyText;
  Result<std::unique_ptr<Tokenizer>> tokenizer = read(file->bytes, *settings);
  if (!tokenizer.ok()) return tokenizer.status().Within(where);
  Status finished = (*tokenizer)->Finish(*settings);
  if (!finished.ok()) return finished.Within(where);
  (*tokenizer)->fingerprint_ = FingerprintOf(*file, *settings);
  return tokenizer;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::LoadFor(const std::filesystem::path& folder,
                                                      int64_t model_vocab_size) {
  WEFT_TRY_ASSIGN(std::unique_ptr<Tokenizer> tokenizer, Load(folder));
  if (tokenizer->vocab_size() <= model_vocab_size) return tokenizer;
  return InvalidArgument(Str("[tokenizer] ", folder.string(), ": has ids up to ",
                             tokenizer->vocab_size() - 1, ", the model's vocabulary ends at ",
                             model_vocab_size - 1,
                             ": it is another model's tokenizer; take the one that came with "
                             "these weights"));
}

Result<TypedIds> Tokenizer::JoinPair(std::span<const int32_t>, std::span<const int32_t>) const {
  return InvalidArgument(
      "[tokenizer] has no template for pairs of texts (post_processor in tokenizer.json); join the "
      "two texts in the data");
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
