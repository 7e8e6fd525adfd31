#include "common/formats/tokenizer/settings.h"

#include <algorithm>
#include <charconv>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/file_io.h"
#include "common/formats/tokenizer/json_view.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

// A file of the folder as JSON; nothing when there is no such file.
Result<std::optional<JsonDocument>> ReadOptionalJson(const std::filesystem::path& path) {
  Result<std::string> text = ReadFile(path, limits::kJsonBytesMax);
  if (!text.ok()) {
    if (text.status().code() == Code::kNotFound) return std::optional<JsonDocument>();
    return text.status();
  }
  WEFT_TRY_ASSIGN(JsonDocument document, JsonDocument::Parse(*text, path.filename().string()));
  return std::optional(std::move(document));
}

// "text", or {"content": "text", …}.
Result<std::optional<std::string>> ReadRole(const JsonView& json, std::string_view key) {
  const auto member = json.Find(key);
  if (!member) return std::optional<std::string>();
  if (member->is_object()) {
    WEFT_TRY_ASSIGN(const JsonView content, member->At("content"));
    WEFT_TRY_ASSIGN(std::string text, content.String());
    return std::optional(std::move(text));
  }
  WEFT_TRY_ASSIGN(std::string text, member->String());
  return std::optional(std::move(text));
}

Status ReadRoles(const JsonView& json, TokenizerSettings& settings) {
  for (const char* role : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    WEFT_TRY_ASSIGN(const auto token, ReadRole(json, role));
    if (!token || token->empty()) continue;
    settings.special_tokens.push_back(*token);
    if (std::string_view(role) == "bos_token") settings.bos_token = *token;
    if (std::string_view(role) == "eos_token") settings.eos_token = *token;
  }
  if (const auto more = json.Find("additional_special_tokens"); more && more->is_array()) {
    WEFT_TRY_ASSIGN(const std::vector<JsonView> items, more->Items());
    for (const JsonView& item : items) {
      WEFT_TRY_ASSIGN(const JsonView content, item.is_object() ? item.At("content") : item);
      WEFT_TRY_ASSIGN(std::string text, content.String());
      if (!text.empty()) settings.special_tokens.push_back(std::move(text));
    }
  }
  return OkStatus();
}

// "…", or [{"name": "default", "template": "…"}, …].
Result<std::optional<std::string>> ReadChatTemplate(const JsonView& json) {
  const auto member = json.Find("chat_template");
  if (!member) return std::optional<std::string>();
  if (!member->is_array()) {
    WEFT_TRY_ASSIGN(std::string text, member->String());
    return std::optional(std::move(text));
  }
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, member->Items());
  for (const JsonView& item : items) {
    WEFT_TRY_ASSIGN(const std::string name, item.StringOr("name", ""));
    if (name != "default") continue;
    WEFT_TRY_ASSIGN(const JsonView source, item.At("template"));
    WEFT_TRY_ASSIGN(std::string text, source.String());
    return std::optional(std::move(text));
  }
  return std::optional<std::string>();
}

// {"32000": {"content": "<|x|>", …}, …}
Status ReadAddedTokensDecoder(const JsonView& json, TokenizerSettings& settings) {
  const auto table = json.Find("added_tokens_decoder");
  if (!table) return OkStatus();
  WEFT_TRY_ASSIGN(const auto members, table->Members());
  for (const auto& [key, value] : members) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 ||
        id > limits::kTokenIdMax) {
      return value.Error(Str("the key is no token id (0 to ", limits::kTokenIdMax, ")"));
    }
    WEFT_TRY_ASSIGN(AddedToken token, ReadAddedToken(value, id));
    settings.added.push_back(std::move(token));
  }
  return OkStatus();
}

Status ReadTokenizerConfig(const JsonView& json, TokenizerSettings& settings) {
  if (!json.is_object()) return json.Error("wanted an object");
  WEFT_TRY(ReadRoles(json, settings));
  WEFT_TRY_ASSIGN(settings.add_bos, json.BoolOr("add_bos_token", true));
  WEFT_TRY_ASSIGN(settings.add_eos, json.BoolOr("add_eos_token", false));
  WEFT_TRY_ASSIGN(settings.do_lower_case, json.BoolOr("do_lower_case", true));
  WEFT_TRY_ASSIGN(settings.chat_template, ReadChatTemplate(json));
  return ReadAddedTokensDecoder(json, settings);
}

// {"<|x|>": 32000, …}, written beside sentencepiece models.
Status ReadAddedTokensFile(const JsonView& json, TokenizerSettings& settings) {
  WEFT_TRY_ASSIGN(const auto entries, json.Counts(limits::kTokenIdMax));
  for (const auto& [content, id] : entries) {
    const bool known =
        std::any_of(settings.added.begin(), settings.added.end(),
                    [content = content](const AddedToken& t) { return t.content == content; });
    if (known) continue;
    const auto& roles = settings.special_tokens;
    const bool special = std::find(roles.begin(), roles.end(), content) != roles.end();
    settings.added.push_back({.content = std::string(content), .id = id, .special = special});
  }
  return OkStatus();
}

// An id, or a list of them of which the first counts. Ids that can be no token's (−1) say that
// there is none.
std::optional<int32_t> ReadRoleId(const JsonView& json, std::string_view key) {
  auto member = json.Find(key);
  if (!member) return std::nullopt;
  if (member->is_array()) {
    const auto items = member->Items();
    if (!items.ok() || items->empty()) return std::nullopt;
    member = items->front();
  }
  const Result<int32_t> id = member->Count(limits::kTokenIdMax);
  if (!id.ok()) return std::nullopt;
  return *id;
}

}  // namespace

Result<AddedToken> ReadAddedToken(const JsonView& json, int32_t id) {
  AddedToken token{.content = {}, .id = id};
  WEFT_TRY_ASSIGN(const JsonView content, json.At("content"));
  WEFT_TRY_ASSIGN(token.content, content.String());
  WEFT_TRY_ASSIGN(token.special, json.BoolOr("special", false));
  WEFT_TRY_ASSIGN(token.lstrip, json.BoolOr("lstrip", false));
  WEFT_TRY_ASSIGN(token.rstrip, json.BoolOr("rstrip", false));
  WEFT_TRY_ASSIGN(token.single_word, json.BoolOr("single_word", false));
  WEFT_TRY_ASSIGN(token.normalized, json.BoolOr("normalized", !token.special));
  return token;
}

Result<TokenizerSettings> ReadTokenizerSettings(const std::filesystem::path& folder) {
  TokenizerSettings settings;
  WEFT_TRY_ASSIGN(const auto config, ReadOptionalJson(folder / "tokenizer_config.json"));
  if (config) {
    WEFT_TRY(ReadTokenizerConfig(config->root(), settings));
  } else {
    WEFT_TRY_ASSIGN(const auto map, ReadOptionalJson(folder / "special_tokens_map.json"));
    if (map) WEFT_TRY(ReadRoles(map->root(), settings));
  }
  WEFT_TRY_ASSIGN(const auto added, ReadOptionalJson(folder / "added_tokens.json"));
  if (added) WEFT_TRY(ReadAddedTokensFile(added->root(), settings));

  Result<std::string> jinja = ReadFile(folder / "chat_template.jinja", limits::kJsonBytesMax);
  if (jinja.ok()) {
    settings.chat_template = ReplaceBadUtf8(*jinja);
  } else if (jinja.status().code() != Code::kNotFound) {
    return jinja.status();
  }
  for (const char* name : {"generation_config.json", "config.json"}) {
    WEFT_TRY_ASSIGN(const auto file, ReadOptionalJson(folder / name));
    if (!file) continue;
    if (!settings.bos_id) settings.bos_id = ReadRoleId(file->root(), "bos_token_id");
    if (!settings.eos_id) settings.eos_id = ReadRoleId(file->root(), "eos_token_id");
  }
  return settings;
}

}  // namespace weft
