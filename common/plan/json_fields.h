#pragma once
// JsonWriter and JsonReader: plain structs to JSON objects and back through one field list per
// struct, without a JSON library in any header. A struct takes part by a VisitFields function:
//
//   template <typename V, FieldsOf<ClientPlan> S>
//   void VisitFields(V& visit, S& plan) {
//     visit.Required("client", plan.client);
//     visit.Optional("adapter", plan.adapter);
//   }
//
// Doubles keep every bit; what JSON has no number for is written as "nan", "inf" and "-inf".
// Unknown keys are ignored, so that a newer writer can be read. Optional keys keep the default.

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"

namespace weft {

template <typename S, typename T>
concept FieldsOf = std::same_as<std::remove_const_t<S>, T>;

/// Name-value lists keep their order: they are written as arrays of [name, value].
template <typename T>
using NamedValues = std::vector<std::pair<std::string, T>>;

class JsonWriter {
 public:
  JsonWriter();
  ~JsonWriter();
  JsonWriter(JsonWriter&&) noexcept;
  JsonWriter& operator=(JsonWriter&&) noexcept;

  template <typename T>
  void Required(std::string_view key, const T& value) {
    Put(key, value);
  }
  template <typename T>
  void Optional(std::string_view key, const T& value) {
    Put(key, value);
  }

  /// The object on one line.
  [[nodiscard]] std::string Text() const;

 private:
  void Put(std::string_view key, bool value);
  void Put(std::string_view key, int64_t value);
  void Put(std::string_view key, uint64_t value);
  void Put(std::string_view key, uint32_t value) { Put(key, uint64_t{value}); }
  void Put(std::string_view key, double value);
  void Put(std::string_view key, const std::string& value);
  void Put(std::string_view key, const ClientId& value) { Put(key, value.name); }
  void Put(std::string_view key, const RunId& value) { Put(key, value.name); }
  void Put(std::string_view key, const RoundId& value) { Put(key, uint64_t{value.number}); }
  void Put(std::string_view key, const std::vector<std::string>& value);
  void Put(std::string_view key, const std::vector<int64_t>& value);
  void Put(std::string_view key, const std::vector<ClientId>& value);
  void Put(std::string_view key, const NamedValues<double>& value);
  void Put(std::string_view key, const NamedValues<int64_t>& value);
  void Put(std::string_view key, const NamedValues<std::string>& value);

  template <typename T>
  void Put(std::string_view key, const T& value) {
    JsonWriter inner;
    VisitFields(inner, value);
    PutObject(key, std::move(inner));
  }
  template <typename T>
  void Put(std::string_view key, const std::vector<T>& values) {
    std::vector<JsonWriter> inner(values.size());
    for (size_t i = 0; i < values.size(); ++i) VisitFields(inner[i], values[i]);
    PutObjects(key, std::move(inner));
  }
  void PutObject(std::string_view key, JsonWriter inner);
  void PutObjects(std::string_view key, std::vector<JsonWriter> inner);

  struct Node;
  std::unique_ptr<Node> node_;
};

class JsonReader {
 public:
  /// Reads `text`; a failure (no JSON, no object) is kept and told by status().
  explicit JsonReader(std::string_view text);
  ~JsonReader();
  JsonReader(JsonReader&&) noexcept;
  JsonReader& operator=(JsonReader&&) noexcept;

  template <typename T>
  void Required(std::string_view key, T& value) {
    Read(key, value, true);
  }
  template <typename T>
  void Optional(std::string_view key, T& value) {
    Read(key, value, false);
  }

  /// The first thing that was wrong, with its path ("cohort[1].adapter.rank: …"), or ok.
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  JsonReader();

  /// Moves to `key`; false (and a failure where required) if there is none.
  bool Find(std::string_view key, bool required);
  void Take(std::string_view key, bool& value);
  void Take(std::string_view key, int64_t& value);
  void Take(std::string_view key, uint64_t& value);
  void Take(std::string_view key, uint32_t& value);
  void Take(std::string_view key, double& value);
  void Take(std::string_view key, std::string& value);
  void Take(std::string_view key, ClientId& value) { Take(key, value.name); }
  void Take(std::string_view key, RunId& value) { Take(key, value.name); }
  void Take(std::string_view key, RoundId& value) { Take(key, value.number); }
  void Take(std::string_view key, std::vector<std::string>& value);
  void Take(std::string_view key, std::vector<int64_t>& value);
  void Take(std::string_view key, std::vector<ClientId>& value);
  void Take(std::string_view key, NamedValues<double>& value);
  void Take(std::string_view key, NamedValues<int64_t>& value);
  void Take(std::string_view key, NamedValues<std::string>& value);

  template <typename T>
  void Take(std::string_view key, T& value) {
    JsonReader inner = TakeObject(key);
    VisitFields(inner, value);
    Keep(key, inner);
  }
  template <typename T>
  void Take(std::string_view key, std::vector<T>& values) {
    std::vector<JsonReader> inner = TakeObjects(key);
    values.clear();
    for (size_t i = 0; i < inner.size(); ++i) {
      VisitFields(inner[i], values.emplace_back());
      Keep(std::string(key) + "[" + std::to_string(i) + "]", inner[i]);
    }
  }
  template <typename T>
  void Read(std::string_view key, T& value, bool required) {
    if (status_.ok() && Find(key, required)) Take(key, value);
  }
  [[nodiscard]] JsonReader TakeObject(std::string_view key);
  [[nodiscard]] std::vector<JsonReader> TakeObjects(std::string_view key);
  void Keep(std::string_view key, const JsonReader& inner);
  void Fail(std::string_view key, std::string_view wanted);

  struct Node;
  std::unique_ptr<Node> node_;
  Status status_;
};

/// The struct as one line of JSON.
template <typename T>
[[nodiscard]] std::string ToJsonText(const T& value) {
  JsonWriter writer;
  VisitFields(writer, value);
  return writer.Text();
}

/// The struct back; kInvalidArgument names the field that is missing or of another type.
template <typename T>
[[nodiscard]] Result<T> FromJsonText(std::string_view text) {
  JsonReader reader(text);
  T value{};
  VisitFields(reader, value);
  if (!reader.status().ok()) return reader.status();
  return value;
}

}  // namespace weft
