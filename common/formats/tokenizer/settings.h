#pragma once
// What a model folder says about its tokenizer beside the vocabulary: tokenizer_config.json,
// special_tokens_map.json, added_tokens.json, chat_template.jinja, generation_config.json,
// config.json. All of them may be absent.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/formats/tokenizer/added_tokens.h"

namespace weft {

struct TokenizerSettings {
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<int32_t>
      bos_id;  // generation_config.json's or config.json's, where no token is named
  std::optional<int32_t> eos_id;
  /// Every token with a role (bos, eos, unk, sep, pad, cls, mask, additional ones), in that order.
  std::vector<std::string> special_tokens;
  /// Tokens on top of the vocabulary file's (added_tokens_decoder, added_tokens.json), by id.
  std::vector<AddedToken> added;
  bool add_bos = true;  // for tokenizer.model only: tokenizer.json has a post-processor instead
  bool add_eos = false;
  bool do_lower_case = true;  // for vocab.txt only: tokenizer.json has a normaliser
  std::optional<std::string> chat_template;  // Jinja
};

[[nodiscard]] Result<TokenizerSettings> ReadTokenizerSettings(const std::filesystem::path& folder);

class JsonView;
/// {"content": …, "special": …, …}. `special` decides what an absent "normalized" means.
[[nodiscard]] Result<AddedToken> ReadAddedToken(const JsonView& json, int32_t id);

}  // namespace weft
