#pragma once
// Training rows: JSONL in the shapes users have, as plain structs with file and line in each error.
// Tokens are made elsewhere (common/data); here is only what text a row stands for. Any thread.
//
// A line is one JSON object; the first of these shapes whose fields it has decides its kind:
//   {"messages": [{"role", "content"}, …]}   a conversation, for the model's chat template
//   {"prompt", "completion"}, {"context", "completion"}, {"instruction", "input"?, "output"}
//   {"prompt", "choices": ["…", …], "answer"}   multiple choice: answer is one of the choices, or
//   the
//                                               number of one from 0; the completion is that choice
//   {"text"}, {"input", "output"}
// Blank lines are skipped, CRLF and a UTF-8 byte-order mark are accepted.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.h"
#include "common/formats/chat_template.h"

namespace weft {

enum class RowKind {
  kPrompt,    // prompt, completion
  kContext,   // context, completion
  kAlpaca,    // instruction, input, output
  kText,      // text: loss on all of it
  kInput,     // input, output
  kMessages,  // messages: loss on what the assistant says
};

struct Row {
  RowKind kind = RowKind::kText;
  std::string prompt;      // prompt, context or instruction; empty for kText and kMessages
  std::string input;       // Alpaca's; may be empty
  std::string completion;  // completion, output or text; empty for kMessages
  std::vector<ChatMessage> messages;
  std::vector<std::string> choices;  // the possible completions of a multiple-choice row
  /// All other top-level strings, numbers and truth values, as text, sorted by name: what rows can
  /// be partitioned by ("client", "label", …).
  std::vector<std::pair<std::string, std::string>> fields;
  uint64_t line = 0;  // in its file, from 1

  /// A top-level field by its name in the file, those of the row's own shape included; nothing when
  /// the row does not have it.
  [[nodiscard]] std::optional<std::string_view> Field(std::string_view name) const;
};

/// The text of a row without a chat template, as it is to be encoded:
///   prompt with the tokenizer's special tokens, then completion without, then eos where `ends`.
/// Loss on completion and eos. kPrompt, kContext: prompt + "\n". kAlpaca: instruction, "\n" + input
/// where there is one, + "\n". kText: no prompt; the completion is encoded with special tokens, and
/// the loss is on all of it.
struct RowText {
  std::string prompt;
  std::string completion;
};
/// `row` must not be kMessages (checked): a conversation needs a chat template.
[[nodiscard]] RowText TextOf(const Row& row);

/// The conversation of a row for --chat: messages as they are; a prompt and its completion as one
/// user's question and the assistant's answer (the prompt without the "\n" that ends it). Nothing
/// for kText.
[[nodiscard]] std::optional<std::vector<ChatMessage>> MessagesOf(const Row& row);

/// One line (without its end) as a row. kInvalidArgument: "[data] file:line: …" with the fields got
/// and wanted.
[[nodiscard]] Result<Row> ParseRow(std::string_view line, std::string_view file, uint64_t number);

/// Reads rows one by one until `take` returns false or the file ends; one line is in memory at a
/// time. Errors: ParseRow's, those of opening, a line over limits::kJsonlLineBytesMax
/// (kResourceExhausted), and a file without any row.
[[nodiscard]] Status ForEachRow(const std::filesystem::path& path,
                                const std::function<bool(Row&&)>& take);

/// The first `rows_max` rows (0: all).
[[nodiscard]] Result<std::vector<Row>> ReadRows(const std::filesystem::path& path,
                                                uint64_t rows_max = 0);

}  // namespace weft
