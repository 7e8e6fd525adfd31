#pragma once
// Tokenizer: text ⇄ token ids, as the tokenizer files of a Hugging Face model folder say. Read
// once, then constant: every method may be called from several threads at once.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace weft {

struct TokenizerSettings;

/// Ids of one sequence and the text each belongs to: 0, of a pair's second 1.
struct TypedIds {
  std::vector<int32_t> ids;
  std::vector<int32_t> types;
};

class Tokenizer {
 public:
  /// Reads a model folder. tokenizer.json wins over tokenizer.model (sentencepiece), and that over
  /// vocab.txt (BERT's).
  [[nodiscard]] static Result<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& folder);
  /// The same for a model of `model_vocab_size` embeddings: kInvalidArgument where the tokenizer
  /// has ids beyond them, for then it is another model's.
  [[nodiscard]] static Result<std::unique_ptr<Tokenizer>> LoadFor(
      const std::filesystem::path& folder, int64_t model_vocab_size);

  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// The ids of `text`. Added and special tokens that stand literally in the text are recognised.
  /// `special` applies the post-processor (begin of text and so on). Bytes that are not UTF-8 count
  /// as U+FFFD.
  [[nodiscard]] virtual std::vector<int32_t> Encode(std::string_view text, bool special) const = 0;

  /// The ids of two texts (each encoded without special tokens) as one sequence with the special
  /// tokens that belong there. kInvalidArgument: the tokenizer's files have no template for pairs.
  [[nodiscard]] virtual Result<TypedIds> JoinPair(std::span<const int32_t> first,
                                                  std::span<const int32_t> second) const;

  /// The text of `ids`: valid UTF-8, bytes that form no character as U+FFFD. Ids outside the
  /// vocabulary are left out.
  [[nodiscard]] virtual std::string Decode(std::span<const int32_t> ids,
                                           bool skip_special) const = 0;

  /// The token's entry in the vocabulary ("Ġthe", "▁the", "<0x0A>"); empty for an id outside it.
  [[nodiscard]] virtual std::string IdToToken(int32_t id) const = 0;
  [[nodiscard]] virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;

  /// One more than the largest id: a model's embedding needs at least this many rows.
  [[nodiscard]] virtual int32_t vocab_size() const = 0;

  [[nodiscard]] std::optional<int32_t> bos_id() const { return bos_id_; }
  [[nodiscard]] std::optional<int32_t> eos_id() const { return eos_id_; }
  /// Their texts, empty where there is none: chat templates need them.
  [[nodiscard]] std::string bos_token() const { return bos_id_ ? IdToToken(*bos_id_) : ""; }
  [[nodiscard]] std::string eos_token() const { return eos_id_ ? IdToToken(*eos_id_) : ""; }
  /// The folder's Jinja chat template, for ChatTemplate::Detect.
  [[nodiscard]] const std::optional<std::string>& chat_template() const { return chat_template_; }
  /// SHA-256 (hex) of the vocabulary file and the settings that change ids: equal fingerprints,
  /// equal ids.
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }

 protected:
  Tokenizer() = default;

 private:
  [[nodiscard]] Status Finish(const TokenizerSettings& settings);

  std::optional<int32_t> bos_id_;
  std::optional<int32_t> eos_id_;
  std::optional<std::string> chat_template_;
  std::string fingerprint_;
};

}  // namespace weft
