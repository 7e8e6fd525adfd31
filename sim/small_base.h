#pragma once
// A base model of two small layers with random weights and a tokenizer of bytes, and rows to train
// on: a federation that needs nothing but a folder to write them to.

#include <filesystem>

#include "common/base/result.h"

namespace weft::sim {

/// Writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json and rows.jsonl. The
/// same bytes every time.
[[nodiscard]] Status WriteSmallBase(const std::filesystem::path& folder);

}  // namespace weft::sim
