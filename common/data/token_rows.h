#pragma once
// TokenRows: training rows as token ids with a label each; what batches are made of. Plain data.
//
// Label alignment is transformers': labels[i] belongs to ids[i], the shift happens where a batch is
// made, so the label of a row's first token never counts.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/formats/chat_template.h"
#include "common/formats/jsonl_rows.h"
#include "common/formats/tokenizer.h"

namespace weft {

inline constexpr int32_t kNoLabel = -100;

struct TokenRow {
  std::vector<int32_t> ids;
  std::vector<int32_t>
      labels;  // as long as ids; kNoLabel: no loss. Empty where the row has a class
  int32_t row_class = kNoLabel;     // what an encoder predicts of the whole row
  std::vector<int32_t> types = {};  // of its tokens: 1 in the second text of a pair; empty: all 0

  /// Labels that count.
  [[nodiscard]] int64_t num_labels() const;
};

/// What became of a file's rows; printed before training and sent with updates.
struct DataSummary {
  uint64_t rows_read = 0;
  uint64_t rows_used = 0;
  uint64_t rows_cut = 0;            // were longer than max_len and lost their end
  uint64_t rows_dropped = 0;        // were longer and left out ("drop")
  uint64_t rows_without_label = 0;  // left out: nothing to learn from (after the cut)
  uint64_t tokens = 0;              // of the rows used
  uint64_t label_tokens = 0;

  /// "1000 rows, 52103 tokens, 31876 with a label; 3 rows cut at 256 tokens".
  [[nodiscard]] std::string Text(int64_t max_len) const;
};

struct TokenRows {
  std::vector<TokenRow> rows;
  DataSummary summary;
};

/// The template that conversations are written with, or why there is none. The reason is an error
/// only where a row needs the template.
using ChatChoice = Result<ChatTemplate>;

/// The template of that name, or where it is empty the one of the tokenizer's folder.
[[nodiscard]] ChatChoice ChooseChatTemplate(const std::string& name, const Tokenizer& tokenizer);
/// None, for want of both.
[[nodiscard]] ChatChoice NoChatTemplate();

struct TokenizeOptions {
  /// Names of classes by id: rows are {"text", "text_pair"?, "label"} and their label, one of these
  /// names or its number, is what there is to learn. Empty: rows are text to be predicted.
  std::vector<std::string> labels = {};
  int64_t max_len = 0;                          // tokens of a row; must be positive
  std::string long_rows = "cut";                // or "drop"
  bool chat = false;                            // prompt rows through the chat template too
  ChatChoice chat_template = NoChatTemplate();  // needed for messages and for `chat`
};

/// Rows with a prompt are prompt (with the tokenizer's special tokens) + completion (without) +
/// eos, loss on completion and eos. Text rows are the text with special tokens + eos where it does
/// not end with one, loss on all but the first token. Conversations follow the template, loss on
/// what the assistant says and what ends it. Rows with a class (TokenizeOptions::labels) are text,
/// or a pair of texts, with special tokens; what is too long loses its end before the last of them.
/// kInvalidArgument: no row is left, no eos, no template, an unknown label (each with what to do).
[[nodiscard]] Result<TokenRows> TokenizeRows(std::span<const Row> rows, const Tokenizer& tokenizer,
                                             const TokenizeOptions& options);

/// Whether TokenizeRows can write every row: a template where there are conversations, an eos where
/// there are others. Quick: nothing is tokenized.
[[nodiscard]] Status CheckRows(std::span<const Row> rows, const Tokenizer& tokenizer,
                               const TokenizeOptions& options);

/// Whether every row has a text and a label, whichever.
[[nodiscard]] Status CheckLabelled(std::span<const Row> rows);

/// The classes of labelled rows: where every label is a whole number, "0" to the largest, else the
/// different labels in order. kInvalidArgument: a row without a label, fewer than two classes, or
/// more than limits::kLabelsMax.
[[nodiscard]] Result<std::vector<std::string>> LabelsOf(std::span<const Row> rows);

/// "cut" or "drop"; anything else is kInvalidArgument.
[[nodiscard]] Status CheckLongRows(const std::string& rule);

/// One fixed batch of a batches file: {"split", "input_ids": [[…]], "labels": [[…]]}.
struct FixedBatch {
  uint64_t line = 0;  // in its file, from 1
  std::string split;  // "train", "eval"
  std::vector<TokenRow> rows;
};
/// Reads a file with one batch a line; ids must lie in [0, vocab_size). Errors name file and line.
[[nodiscard]] Result<std::vector<FixedBatch>> ReadFixedBatches(const std::filesystem::path& path,
                                                               int64_t vocab_size);

}  // namespace weft
