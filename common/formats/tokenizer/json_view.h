#pragma once
// JsonView: typed reading of a JSON file somebody else wrote. Every access that finds the wrong
// type is a Status that names the file and the path of the value; nothing throws. Views borrow from
// their document.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.h"

namespace weft {

class JsonView {
 public:
  JsonView(const void* node, std::string path) : node_(node), path_(std::move(path)) {}

  [[nodiscard]] bool is_string() const;
  [[nodiscard]] bool is_object() const;
  [[nodiscard]] bool is_array() const;

  /// The member, or nothing when it is absent or null. Nothing, too, when this is no object.
  [[nodiscard]] std::optional<JsonView> Find(std::string_view key) const;
  /// The member; absent or null is an error.
  [[nodiscard]] Result<JsonView> At(std::string_view key) const;

  [[nodiscard]] Result<std::string> String() const;
  [[nodiscard]] Result<bool> Bool() const;
  /// An integer in [0, max].
  [[nodiscard]] Result<int32_t> Count(int32_t max) const;
  [[nodiscard]] Result<std::vector<JsonView>> Items() const;
  [[nodiscard]] Result<std::vector<std::pair<std::string, JsonView>>> Members() const;

  /// The member's value, or the default when it is absent or null.
  [[nodiscard]] Result<std::string> StringOr(std::string_view key, std::string fallback) const;
  [[nodiscard]] Result<bool> BoolOr(std::string_view key, bool fallback) const;

  /// {"token": id, …} with ids in [0, max], for vocabularies: without a path for each entry.
  [[nodiscard]] Result<std::vector<std::pair<std::string_view, int32_t>>> Counts(int32_t max) const;
  /// ["a b", …] or [["a","b"], …], for merges: the text around the one blank, or the two strings.
  [[nodiscard]] Result<std::vector<std::pair<std::string_view, std::string_view>>> Pairs() const;

  /// "[tokenizer.json] /model/vocab: message".
  [[nodiscard]] Status Error(std::string_view message) const;

 private:
  [[nodiscard]] Status Wanted(std::string_view type) const;

  const void* node_;  // a nlohmann::json, which headers do not see
  std::string path_;  // "[file] /a/b"
};

/// A parsed file; keeps the values that its views point into.
class JsonDocument {
 public:
  /// `name` stands in errors. Depth costs heap, not stack.
  [[nodiscard]] static Result<JsonDocument> Parse(std::string_view text, std::string_view name);

  [[nodiscard]] JsonView root() const;

 private:
  JsonDocument(std::shared_ptr<const void> json, std::string name)
      : json_(std::move(json)), name_(std::move(name)) {}

  std::shared_ptr<const void> json_;
  std::string name_;
};

}  // namespace weft
