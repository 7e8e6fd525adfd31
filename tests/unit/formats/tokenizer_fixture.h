#pragma once
// Small tokenizers written by the tests themselves.

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/formats/tokenizer.h"
#include "common/formats/tokenizer/byte_level.h"
#include "common/formats/tokenizer/json_view.h"
#include "tests/support/temp_folder.h"

namespace weft {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

/// A folder of its own for each test, gone afterwards.
class TokenizerFolderTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }
  void Write(const std::string& name, const Json& json) { Write(name, json.dump()); }

  /// Fails the test where the folder does not load.
  std::unique_ptr<Tokenizer> Load() {
    auto loaded = Tokenizer::Load(folder_);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? std::move(loaded).value() : nullptr;
  }
  std::unique_ptr<Tokenizer> Load(const Json& tokenizer) {
    Write("tokenizer.json", tokenizer);
    return Load();
  }
  /// The error of a folder that must not load.
  std::string LoadError() {
    auto loaded = Tokenizer::Load(folder_);
    EXPECT_FALSE(loaded.ok());
    return loaded.status().message();
  }
  std::string LoadError(const Json& tokenizer) {
    Write("tokenizer.json", tokenizer);
    return LoadError();
  }

  testing::TempFolder own_;
  std::filesystem::path folder_ = own_.path();
};

inline std::string ByteText(std::string_view bytes) {
  std::string text;
  AppendByteCharacters(bytes, text);
  return text;
}

/// Byte-level BPE: ids 0–255 are the bytes, merges follow from 256 in the order given ("Ġ a" form).
inline Json ByteLevelJson(const std::vector<std::pair<std::string, std::string>>& merges) {
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) vocab[ByteText(std::string(1, static_cast<char>(b)))] = b;
  Json list = Json::array();
  int next = 256;
  for (const auto& [left, right] : merges) {
    vocab[ByteText(left + right)] = next++;
    list.push_back(ByteText(left) + " " + ByteText(right));
  }
  const Json bytes = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", true}};
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", bytes},
          {"post_processor", nullptr},
          {"decoder", bytes},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}}};
}

inline Json AddedTokenJson(int id, const std::string& content,
                           const Json& changes = Json::object()) {
  Json token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  token.update(changes);
  return token;
}

/// A parsed document for tests of one component.
inline JsonDocument Parsed(const Json& json) {
  auto document = JsonDocument::Parse(json.dump(), "test.json");
  EXPECT_TRUE(document.ok()) << document.status();
  return std::move(document).value();
}

}  // namespace weft
