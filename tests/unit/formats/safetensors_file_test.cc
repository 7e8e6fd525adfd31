// Safetensors files and model folders: round trips, shards, damage.

#include <cstring>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/formats/safetensors.h"
#include "common/formats/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using ::testing::HasSubstr;
using testing::TempFolder;

std::string Repeated(char c, size_t count) { return std::string(count, c); }

TensorToWrite Tensor(const std::string& name, const std::string& bytes) {
  return {name, DType::kUInt8, {static_cast<int64_t>(bytes.size())}, AsBytes(bytes)};
}

TEST(SafetensorsFileTest, WhatIsWrittenIsRead) {
  const TempFolder folder;
  const auto path = folder.path() / "x.safetensors";
  const std::string wide = Repeated('w', 24);
  const std::string half = Repeated('h', 6);
  const std::vector<TensorToWrite> tensors = {
      {"half", DType::kBFloat16, {3}, AsBytes(half)},
      {"wide", DType::kFloat32, {2, 3}, AsBytes(wide)},
      {"scalar", DType::kFloat64, {}, AsBytes(wide).first(8)},
      {"empty", DType::kFloat32, {0, 4}, {}}};
  const SafetensorsMetadata metadata = {{"format", "pt"}, {"note", "a \"quoted\" ü"}};
  ASSERT_EQ(WriteSafetensors(path, tensors, metadata), OkStatus());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file.value().metadata(), metadata);
  ASSERT_EQ(file.value().tensors().size(), tensors.size());
  for (const TensorToWrite& wanted : tensors) {
    const StoredTensor* const got = file.value().Find(wanted.name);
    ASSERT_NE(got, nullptr) << wanted.name;
    EXPECT_EQ(got->dtype, wanted.dtype);
    EXPECT_EQ(got->shape, wanted.shape);
    EXPECT_EQ(got->bytes.view(), AsText(wanted.bytes));
    const auto address = reinterpret_cast<uintptr_t>(got->bytes.data());
    EXPECT_EQ(address % DTypeBytes(got->dtype), 0u) << wanted.name << " is not aligned";
  }
  EXPECT_EQ(file.value().Find("absent"), nullptr);
}

// The bytes of safetensors.torch.save (0.5) for the same tensors.
TEST(SafetensorsFileTest, TheBytesAreThoseOfTheReferenceWriter) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"z.ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("b.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},)"
      R"("a.half":{"dtype":"BF16","shape":[2],"data_offsets":[32,36]},)"
      R"("a.mask":{"dtype":"BOOL","shape":[3],"data_offsets":[36,39]}}      )";
  const std::string ids("\x07\0\0\0\0\0\0\0", 8);
  const float values[6] = {0, 1, 2, 3, 4, 5};
  std::string weight(sizeof values, '\0');
  std::memcpy(weight.data(), values, sizeof values);
  const std::string half("\xC0\x3F\x00\xC0", 4);
  const std::string mask("\x01\x00\x01", 3);
  const std::vector<TensorToWrite> tensors = {
      {"a.mask", DType::kBool, {3}, AsBytes(mask)},
      {"b.weight", DType::kFloat32, {2, 3}, AsBytes(weight)},
      {"a.half", DType::kBFloat16, {2}, AsBytes(half)},
      {"z.ids", DType::kInt64, {1}, AsBytes(ids)}};
  const auto bytes = EncodeSafetensors(tensors, {{"format", "pt"}});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(bytes.value().view(),
            std::string("\x18\x01\0\0\0\0\0\0", 8) + header + ids + weight + half + mask);
}

TEST(SafetensorsFileTest, TensorsShareTheMappingAndKeepItAlive) {
  const TempFolder folder;
  const auto path = folder.path() / "x.safetensors";
  const std::string bytes = Repeated('b', 100000);
  ASSERT_EQ(WriteSafetensors(path, std::vector{Tensor("t", bytes)}), OkStatus());
  Blob kept;
  {
    const auto file = SafetensorsFile::Open(path);
    ASSERT_TRUE(file.ok());
    kept = file.value().Find("t")->bytes;
    EXPECT_EQ(kept.owner(), file.value().tensors()[0].bytes.owner());
  }
  std::filesystem::remove(path);
  EXPECT_EQ(kept.view(), bytes);
}

TEST(SafetensorsFileTest, WritingRefusesDoubledNamesAndNamesThatAreNoText) {
  const std::string x = "x";
  const auto twice = EncodeSafetensors(std::vector{Tensor("t", x), Tensor("t", x)});
  EXPECT_THAT(twice.status().message(), HasSubstr("tensor t to write is named twice"));
  const auto bad = EncodeSafetensors(std::vector{Tensor("t\xFF", x)});
  EXPECT_THAT(bad.status().message(), HasSubstr("not UTF-8"));
  const auto reserved = EncodeSafetensors(std::vector{Tensor("__metadata__", x)});
  EXPECT_EQ(reserved.status().code(), Code::kInvalidArgument);
  const auto metadata = EncodeSafetensors(std::vector{Tensor("t", x)}, {{"k", "\xC0"}});
  EXPECT_THAT(metadata.status().message(), HasSubstr("metadata k"));
}

TEST(SafetensorsFileTest, MissingFilesFoldersAndEmptyFilesAreNamed) {
  const TempFolder folder;
  const auto missing = SafetensorsFile::Open(folder.path() / "no.safetensors");
  EXPECT_EQ(missing.status().code(), Code::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("no.safetensors"));
  EXPECT_THAT(SafetensorsFile::Open(folder.path()).status().message(), HasSubstr("got a folder"));
  const auto empty = SafetensorsFile::Open(folder.Write("empty.safetensors", ""));
  EXPECT_EQ(empty.status().code(), Code::kDataLoss);
  EXPECT_THAT(empty.status().message(), HasSubstr("empty.safetensors: got 0 bytes"));
}

// Whatever is done to a valid file, reading it gives a Status or tensors that lie inside it.
TEST(SafetensorsFileTest, SeededMutationsNeverCrashAndNeverPointOutside) {
  const std::string a = Repeated('a', 32);
  const std::string b = Repeated('b', 8);
  const std::vector<TensorToWrite> tensors = {{"layer.weight", DType::kFloat32, {2, 4}, AsBytes(a)},
                                              {"layer.bias", DType::kFloat16, {4}, AsBytes(b)},
                                              {"ids", DType::kInt32, {2}, AsBytes(b)}};
  const auto valid = EncodeSafetensors(tensors, {{"format", "pt"}});
  ASSERT_TRUE(valid.ok());
  const std::string original(valid.value().view());
  RandomStream random = RandomStream::Derive(20261124, {"safetensors", "mutations"});
  const std::string_view spice = "{}[]\":,0123456789-.eE\\ \xFF";
  size_t refused = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string bytes = original;
    const uint64_t changes = 1 + random.Below(4);
    for (uint64_t i = 0; i < changes && !bytes.empty(); ++i) {
      const size_t at = random.Below(bytes.size());
      switch (random.Below(5)) {
        case 0:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
          break;
        case 1:
          bytes[at] = spice[random.Below(spice.size())];
          break;
        case 2:
          bytes.resize(at);
          break;
        case 3:
          bytes.insert(at, 1, spice[random.Below(spice.size())]);
          break;
        default:
          bytes.erase(at, 1 + random.Below(8));
          break;
      }
    }
    const Blob blob = Blob::Adopt(bytes);
    const auto file = SafetensorsFile::Parse(blob, "mutant");
    if (!file.ok()) {
      ++refused;
      EXPECT_THAT(file.status().message(), HasSubstr("mutant"));
      continue;
    }
    for (const StoredTensor& tensor : file.value().tensors()) {
      ASSERT_GE(tensor.bytes.data(), blob.data());
      ASSERT_LE(tensor.bytes.data() + tensor.bytes.size(), blob.data() + blob.size());
      ASSERT_EQ(tensor.bytes.size(), TensorBytes(tensor.dtype, tensor.shape));
    }
  }
  EXPECT_GT(refused, 3000u);  // flips inside the data or in names are valid files
}

}  // namespace
}  // namespace weft
