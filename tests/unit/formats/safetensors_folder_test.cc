// Model folders: one file or shards with an index, and every way the index can be wrong.

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/formats/safetensors.h"
#include "common/formats/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempFolder;

constexpr const char* kFirst = "model-00001-of-00002.safetensors";
constexpr const char* kSecond = "model-00002-of-00002.safetensors";

void WriteShard(const TempFolder& folder, const std::string& file,
                const std::vector<std::string>& names) {
  std::vector<TensorToWrite> tensors;
  for (const std::string& name : names) {
    tensors.push_back({name, DType::kUInt8, {static_cast<int64_t>(name.size())}, AsBytes(name)});
  }
  ASSERT_EQ(WriteSafetensors(folder.path() / file, tensors), OkStatus());
}

void WriteIndex(const TempFolder& folder, const std::string& map) {
  folder.Write("model.safetensors.index.json",
               R"({"metadata":{"total_size":3},"weight_map":)" + map + "}");
}

std::string GoodMap() {
  return std::string(R"({"b":")") + kFirst + R"(","c":")" + kFirst + R"(","a":")" + kSecond +
         R"("})";
}

std::string OpenError(const TempFolder& folder) {
  const auto opened = SafetensorsFolder::Open(folder.path());
  EXPECT_FALSE(opened.ok());
  return opened.status().ToString();
}

TEST(SafetensorsFolderTest, ShardsGiveTheSameTensorsAsOneFile) {
  const TempFolder one;
  WriteShard(one, "model.safetensors", {"c", "a", "b"});
  const TempFolder sharded;
  WriteShard(sharded, kFirst, {"b", "c"});
  WriteShard(sharded, kSecond, {"a"});
  WriteIndex(sharded, GoodMap());
  const auto whole = SafetensorsFolder::Open(one.path());
  const auto parts = SafetensorsFolder::Open(sharded.path());
  ASSERT_TRUE(whole.ok()) << whole.status();
  ASSERT_TRUE(parts.ok()) << parts.status();
  for (const SafetensorsFolder* folder : {&whole.value(), &parts.value()}) {
    std::vector<std::string> names;
    for (const StoredTensor& tensor : folder->tensors()) names.push_back(tensor.name);
    EXPECT_THAT(names, ElementsAre("a", "b", "c"));
    ASSERT_NE(folder->Find("b"), nullptr);
    EXPECT_EQ(folder->Find("b")->bytes.view(), "b");
    EXPECT_EQ(folder->Find("bb"), nullptr);
  }
  EXPECT_EQ(parts.value().files().size(), 2u);
}

TEST(SafetensorsFolderTest, OneFileWinsOverAnIndex) {
  const TempFolder folder;
  WriteShard(folder, "model.safetensors", {"a"});
  folder.Write("model.safetensors.index.json", "no json");
  EXPECT_TRUE(SafetensorsFolder::Open(folder.path()).ok());
}

TEST(SafetensorsFolderTest, NoWeightsAreNamedWithWhatLiesThereInstead) {
  const TempFolder folder;
  EXPECT_THAT(OpenError(folder), HasSubstr("got neither model.safetensors nor"));
  folder.Write("pytorch_model.bin", "x");
  EXPECT_THAT(OpenError(folder), HasSubstr("there is pytorch_model.bin"));
  const auto absent = SafetensorsFolder::Open(folder.path() / "absent");
  EXPECT_EQ(absent.status().code(), Code::kNotFound);
  EXPECT_THAT(absent.status().message(), HasSubstr("no such model folder"));
}

TEST(SafetensorsFolderTest, AMissingShardIsNamed) {
  const TempFolder folder;
  WriteShard(folder, kFirst, {"b", "c"});
  WriteIndex(folder, GoodMap());
  const std::string error = OpenError(folder);
  EXPECT_THAT(error, HasSubstr("not-found"));
  EXPECT_THAT(error, HasSubstr(std::string(kSecond) + ": the shard is missing"));
}

TEST(SafetensorsFolderTest, ATensorThatIsNotWhereTheIndexSaysIsNamed) {
  const TempFolder folder;
  WriteShard(folder, kFirst, {"b"});
  WriteShard(folder, kSecond, {"a"});
  WriteIndex(folder, GoodMap());
  EXPECT_THAT(OpenError(folder), HasSubstr("tensor c is missing"));
  WriteShard(folder, kSecond, {"a", "c"});
  EXPECT_THAT(OpenError(folder), HasSubstr(std::string("says it is in ") + kFirst));
  WriteShard(folder, kFirst, {"b", "c"});
  WriteShard(folder, kSecond, {"a", "stranger"});
  EXPECT_THAT(OpenError(folder),
              HasSubstr("tensor stranger: model.safetensors.index.json does not"));
}

TEST(SafetensorsFolderTest, ADamagedShardIsNamed) {
  const TempFolder folder;
  WriteShard(folder, kFirst, {"b", "c"});
  WriteShard(folder, kSecond, {"a"});
  WriteIndex(folder, GoodMap());
  const std::string whole = folder.Read(kSecond);
  folder.Write(kSecond, whole.substr(0, whole.size() - 1));
  const std::string error = OpenError(folder);
  EXPECT_THAT(error, HasSubstr("data-loss"));
  EXPECT_THAT(error, HasSubstr(kSecond));
}

TEST(SafetensorsFolderTest, AnIndexMayNotReachOutsideItsFolder) {
  for (const char* file : {"../m.safetensors", "/etc/passwd", "sub/m.safetensors", "..", ".", "",
                           "a\\\\b", "a\\u0000b"}) {
    const TempFolder folder;
    WriteIndex(folder, std::string(R"({"a":")") + file + R"("})");
    EXPECT_THAT(OpenError(folder), HasSubstr("wanted the name of a file in this folder")) << file;
  }
}

TEST(SafetensorsFolderTest, AMalformedIndexIsNamed) {
  const TempFolder folder;
  const auto error = [&folder](const std::string& text) {
    folder.Write("model.safetensors.index.json", text);
    return OpenError(folder);
  };
  EXPECT_THAT(error("{"), HasSubstr("index.json: is not JSON"));
  EXPECT_THAT(error("[]"), HasSubstr("wanted an object \"weight_map\""));
  EXPECT_THAT(error("{}"), HasSubstr("wanted an object \"weight_map\""));
  EXPECT_THAT(error(R"({"weight_map":[]})"), HasSubstr("wanted an object \"weight_map\""));
  EXPECT_THAT(error(R"({"weight_map":{}})"), HasSubstr("weight_map is empty"));
  EXPECT_THAT(error(R"({"weight_map":{"a":7}})"), HasSubstr("weight_map of tensor a: got 7"));
}

}  // namespace
}  // namespace weft
