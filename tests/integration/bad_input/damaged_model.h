#pragma once
// The example model in a folder of its own, to be damaged, and the commands that then meet it.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/integration/bad_input/command.h"
#include "tests/support/temp_folder.h"

namespace weft::testing {

const std::filesystem::path kTinyModel =
    std::filesystem::path(WEFT_SOURCE_DIR) / "examples" / "tiny" / "model";
const std::string kTinyRows =
    (std::filesystem::path(WEFT_SOURCE_DIR) / "examples" / "tiny" / "data" / "heldout.jsonl")
        .string();

/// A safetensors file as its parts: 8 bytes of length, the header, the tensors' bytes.
struct WeightFile {
  nlohmann::ordered_json header;
  std::string data;

  [[nodiscard]] static WeightFile Read(const std::filesystem::path& path);
  /// `length` overrides what the first 8 bytes say; `text` the header.
  [[nodiscard]] std::string Bytes() const;
};
[[nodiscard]] std::string WithLength(uint64_t length, const std::string& rest);

class DamagedModel {
 public:
  DamagedModel();

  [[nodiscard]] std::string folder() const { return temp_.path().string(); }
  [[nodiscard]] std::string File(const std::string& name) const {
    return (temp_.path() / name).string();
  }
  void Write(const std::string& name, const std::string& content) const;
  void Remove(const std::string& name) const;

  /// config.json of the example with `edit` applied.
  void Config(const std::function<void(nlohmann::ordered_json&)>& edit) const;
  /// model.safetensors of the example with `edit` applied to header and data.
  void Weights(const std::function<void(WeightFile&)>& edit) const;
  /// tokenizer.json of the example with `edit` applied.
  void Tokenizer(const std::function<void(nlohmann::ordered_json&)>& edit) const;

  /// `weft eval` on a few good rows, the shortest command that loads everything.
  [[nodiscard]] Ran Eval(const std::vector<std::string>& more = {}) const;

 private:
  void EditJson(const std::string& name,
                const std::function<void(nlohmann::ordered_json&)>& edit) const;

  TempFolder temp_;
};

}  // namespace weft::testing
