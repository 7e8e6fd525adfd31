#pragma once
// ConfigFields: typed fields of an HF configuration object, with errors that name file and field.
// The JSON value lives in the .cc files that make these; here it is only pointed to. A null field
// counts as absent, as in transformers.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace weft {

class ConfigFields {
 public:
  /// `object`: a nlohmann::json object that outlives this; `where` begins errors ("[config]
  /// f.json").
  ConfigFields(const void* object, std::string where) : object_(object), where_(std::move(where)) {}

  [[nodiscard]] bool Has(std::string_view name) const;
  /// There, if only as null; for fields whose class default is not null.
  [[nodiscard]] bool HasKey(std::string_view name) const;

  /// Whole numbers within [min, max]. `fallback` is the value when the field is absent or null;
  /// without one absence is an error.
  [[nodiscard]] Result<int64_t> Int(std::string_view name, int64_t min, int64_t max,
                                    std::optional<int64_t> fallback = std::nullopt) const;
  /// Finite numbers within [min, max].
  [[nodiscard]] Result<double> Number(std::string_view name, double min, double max,
                                      std::optional<double> fallback = std::nullopt) const;
  [[nodiscard]] Result<bool> Bool(std::string_view name, bool fallback) const;
  [[nodiscard]] Result<std::string> Text(std::string_view name,
                                         std::optional<std::string> fallback = std::nullopt) const;
  /// A list of strings; empty when absent.
  [[nodiscard]] Result<std::vector<std::string>> Texts(std::string_view name) const;
  /// One whole number or a list of them, each within [min, max]; empty when absent.
  [[nodiscard]] Result<std::vector<int64_t>> Ints(std::string_view name, int64_t min,
                                                  int64_t max) const;
  /// An object inside this one; nothing when absent.
  [[nodiscard]] Result<std::optional<ConfigFields>> Object(std::string_view name) const;

  /// Fields of this object, null ones included.
  [[nodiscard]] size_t size() const;

  /// "[config] file: field name: message".
  [[nodiscard]] Status Error(std::string_view name, std::string_view message) const;
  [[nodiscard]] const std::string& where() const { return where_; }

 private:
  [[nodiscard]] const void* Find(std::string_view name) const;

  const void* object_;
  std::string where_;
};

}  // namespace weft
