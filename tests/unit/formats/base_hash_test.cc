// The base model's identity: independent of sharding, remembered, never stale.

#include "common/formats/base_hash.h"

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/crypto/digest.h"
#include "common/formats/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::TempFolder;

constexpr const char* kCache = "weft-base-hash.json";

void Write(const fs::path& path, const std::vector<std::pair<std::string, std::string>>& tensors) {
  std::vector<TensorToWrite> out;
  for (const auto& [name, bytes] : tensors) {
    out.push_back({name, DType::kUInt8, {static_cast<int64_t>(bytes.size())}, AsBytes(bytes)});
  }
  ASSERT_EQ(WriteSafetensors(path, out), OkStatus());
}

std::string Hash(const fs::path& folder) {
  const auto hash = BaseHash(folder);
  EXPECT_TRUE(hash.ok()) << hash.status();
  return hash.ok() ? hash.value() : "";
}

// Keeps the cache below a folder of the test's own, whatever the machine has.
class BaseHashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* const old = std::getenv("XDG_CACHE_HOME");
    had_ = old != nullptr;
    if (had_) old_ = old;
    ::setenv("XDG_CACHE_HOME", home_.path().c_str(), 1);
  }
  void TearDown() override {
    if (had_) {
      ::setenv("XDG_CACHE_HOME", old_.c_str(), 1);
    } else {
      ::unsetenv("XDG_CACHE_HOME");
    }
  }
  TempFolder home_;

 private:
  bool had_ = false;
  std::string old_;
};

TEST_F(BaseHashTest, TheEncodingIsTheOneTheHeaderStates) {
  const TempFolder folder;
  Write(folder.path() / "model.safetensors", {{"b", "xyz"}, {"a", ""}});
  const auto number = [](uint64_t value) {
    std::string bytes;
    for (unsigned i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
    return bytes;
  };
  const std::string text = "weft base model 1\n" + number(2) +  //
                           number(1) + "a" + number(2) + "U8" + number(1) + number(0) + number(0) +
                           number(1) + "b" + number(2) + "U8" + number(1) + number(3) + number(3) +
                           "xyz";
  EXPECT_EQ(Hash(folder.path()), Sha256Hex(AsBytes(text)));
}

TEST_F(BaseHashTest, ShardingDoesNotMatterContentDoes) {
  const TempFolder one;
  Write(one.path() / "model.safetensors", {{"a", "1"}, {"b", "2"}});
  const TempFolder two;
  Write(two.path() / "x.safetensors", {{"b", "2"}});
  Write(two.path() / "y.safetensors", {{"a", "1"}});
  two.Write("model.safetensors.index.json",
            R"({"weight_map":{"a":"y.safetensors","b":"x.safetensors"}})");
  EXPECT_EQ(Hash(one.path()), Hash(two.path()));
  for (const auto& other : std::vector<std::vector<std::pair<std::string, std::string>>>{
           {{"a", "1"}, {"b", "3"}}, {{"a", "1"}, {"c", "2"}}, {{"a", "12"}, {"b", ""}}}) {
    const TempFolder changed;
    Write(changed.path() / "model.safetensors", other);
    EXPECT_NE(Hash(one.path()), Hash(changed.path()));
  }
}

TEST_F(BaseHashTest, IsRememberedBesideTheWeights) {
  const TempFolder folder;
  Write(folder.path() / "model.safetensors", {{"a", "1"}});
  const std::string hash = Hash(folder.path());
  std::string cache = folder.Read(kCache);
  ASSERT_THAT(cache, HasSubstr(hash));
  // A mark in the remembered value shows that it is taken instead of reading the weights.
  const std::string marked = std::string(63, '0') + "1";
  cache.replace(cache.find(hash), hash.size(), marked);
  folder.Write(kCache, cache);
  EXPECT_EQ(Hash(folder.path()), marked);
}

TEST_F(BaseHashTest, AStaleOrDamagedMemoryIsReplaced) {
  const TempFolder folder;
  const fs::path file = folder.path() / "model.safetensors";
  Write(file, {{"a", "1"}});
  const std::string first = Hash(folder.path());
  const auto written = fs::last_write_time(file);
  Write(file, {{"a", "2"}});  // the same size
  fs::last_write_time(file, written + std::chrono::nanoseconds(1000));
  const std::string second = Hash(folder.path());
  EXPECT_NE(first, second);
  EXPECT_THAT(folder.Read(kCache), HasSubstr(second));
  for (const char* damaged : {"", "{", "[]", R"({"sha256":7})", R"({"files":[],"sha256":"00"})"}) {
    folder.Write(kCache, damaged);
    EXPECT_EQ(Hash(folder.path()), second) << damaged;
  }
}

TEST_F(BaseHashTest, AFolderThatCannotBeWrittenIsRememberedInTheHomeCache) {
  const TempFolder folder;
  Write(folder.path() / "model.safetensors", {{"a", "1"}});
  fs::create_directory(folder.path() / kCache);  // nobody, root neither, can replace a folder
  folder.Write(std::string(kCache) + "/taken", "x");
  const std::string hash = Hash(folder.path());
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(home_.path() / "weft")) {
    files.push_back(entry.path());
  }
  ASSERT_EQ(files.size(), 1u);
  const std::string name = "weft/" + files[0].filename().string();
  std::string cache = home_.Read(name);
  ASSERT_THAT(cache, HasSubstr(hash));
  const std::string marked = std::string(63, '0') + "2";
  cache.replace(cache.find(hash), hash.size(), marked);
  home_.Write(name, cache);
  EXPECT_EQ(Hash(folder.path()), marked);
}

TEST_F(BaseHashTest, FailingToRememberIsNoError) {
  const TempFolder folder;
  Write(folder.path() / "model.safetensors", {{"a", "1"}});
  folder.Write(std::string(kCache) + "/taken", "x");
  home_.Write("weft", "a file where the cache's folder would be");
  EXPECT_EQ(Hash(folder.path()).size(), 64u);
}

TEST_F(BaseHashTest, AMissingShardIsNamed) {
  const TempFolder folder;
  folder.Write("model.safetensors.index.json", R"({"weight_map":{"a":"y.safetensors"}})");
  const auto hash = BaseHash(folder.path());
  EXPECT_EQ(hash.status().code(), Code::kNotFound);
  EXPECT_THAT(hash.status().message(), HasSubstr("y.safetensors: the shard is missing"));
}

BaseDescription Example() {
  return {.hash = std::string(64, 'a'),
          .architecture = "LlamaForCausalLM",
          .sites = {{"model.layers.0.mlp.up_proj", 8, 12}, {"lm_head", 8, 10}}};
}

TEST_F(BaseHashTest, ADescriptionIsReadAsItWasWritten) {
  const TempFolder folder;
  const fs::path path = folder.path() / "base.json";
  ASSERT_EQ(WriteBaseDescription(path, Example()), OkStatus());
  const auto read = ReadBaseDescription(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read.value(), Example());
}

TEST_F(BaseHashTest, AWrongDescriptionNamesFileAndField) {
  const auto error = [](const std::string& text) {
    const auto parsed = ParseBaseDescription(text, "base.json");
    EXPECT_FALSE(parsed.ok()) << text;
    EXPECT_THAT(parsed.status().message(), HasSubstr("[base] base.json: "));
    return parsed.status().message();
  };
  const auto changed = [](const std::string& from, const std::string& to) {
    std::string text = EncodeBaseDescription(Example());
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  EXPECT_THAT(error("{"), HasSubstr("is not JSON"));
  EXPECT_THAT(error("[]"), HasSubstr("wanted a JSON object"));
  EXPECT_THAT(error("{}"), HasSubstr("field hash: is missing"));
  EXPECT_THAT(error(changed("aaaa", "AAAA")), HasSubstr("field hash: wanted 64"));
  EXPECT_THAT(error(changed("\"sites\"", "\"layers\"")), HasSubstr("field sites: wanted a list"));
  EXPECT_THAT(error(changed("\"in\": 8", "\"in\": 0")), HasSubstr("sites[0]: field in: got 0"));
  EXPECT_THAT(error(changed("\"out\": 10", "\"out\": \"x\"")), HasSubstr("sites[1]: field out"));
  EXPECT_THAT(error(changed("lm_head", "")), HasSubstr("sites[1]: field path: got 0 bytes"));
  EXPECT_THAT(error(changed("lm_head", std::string(300, 'p'))), HasSubstr("got 300 bytes"));
}

TEST_F(BaseHashTest, DescribingAFolderNeedsConfigAndTensorsThatAgree) {
  const TempFolder folder;
  folder.Write("config.json",
               R"({"architectures":["LlamaForCausalLM"],"vocab_size":4,"hidden_size":2,)"
               R"("intermediate_size":2,"num_hidden_layers":1,"num_attention_heads":1,)"
               R"("max_position_embeddings":8})");
  Write(folder.path() / "model.safetensors", {{"a", "1"}});
  const auto description = DescribeBase(folder.path());
  EXPECT_THAT(description.status().message(), HasSubstr("model.embed_tokens.weight is missing"));
}

}  // namespace
}  // namespace weft
