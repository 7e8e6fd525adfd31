#pragma once
// Knowledge edits: JSONL of prompts and what a model is to answer from now on. Any thread.
//
// A line is one JSON object: "prompt", the new answer as "target_new", "target" or "completion",
// and optionally "paraphrases" (other ways to ask, a list of strings). Other fields are let be.
// Blank lines are skipped, CRLF and a UTF-8 byte-order mark are accepted.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace weft {

struct EditRow {
  std::string prompt;
  std::string target;  // may be empty only where a target is not needed
  std::vector<std::string> paraphrases;
  uint64_t line = 0;  // in its file, from 1
};

/// Does a row need an answer? Prompts that are only asked do not.
enum class EditTarget { kNeeded, kOptional };

/// One line (without its end). kInvalidArgument: "[edit] file:line: …" with what was wanted.
[[nodiscard]] Result<EditRow> ParseEdit(std::string_view line, std::string_view file,
                                        uint64_t number, EditTarget target);

/// The rows from row `skip` on, at most `rows_max` of them (0: all). A file without any row at all
/// is an error, one that ends before `skip` gives none.
[[nodiscard]] Result<std::vector<EditRow>> ReadEdits(const std::filesystem::path& path,
                                                     EditTarget target, uint64_t skip = 0,
                                                     uint64_t rows_max = 0);

}  // namespace weft
