// Every way a safetensors header can lie, and the message that says so.

#include "common/formats/safetensors_header.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft {
namespace {

using ::testing::HasSubstr;

std::string WithLength(uint64_t length, const std::string& rest) {
  std::string file;
  for (unsigned i = 0; i < 8; ++i) file.push_back(static_cast<char>((length >> (8 * i)) & 0xFF));
  return file + rest;
}

std::string FileOf(const std::string& json, size_t data_bytes) {
  return WithLength(json.size(), json + std::string(data_bytes, '\0'));
}

Result<SafetensorsHeader> Parse(const std::string& file) {
  return ParseSafetensorsHeader(AsBytes(file), file.size(), "m.safetensors");
}

struct Hostile {
  std::string json;
  size_t data_bytes;
  std::string message;
};

class HostileHeaderTest : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileHeaderTest, IsRefusedWithAMessageThatNamesFileAndFault) {
  const auto header = Parse(FileOf(GetParam().json, GetParam().data_bytes));
  ASSERT_FALSE(header.ok()) << GetParam().json;
  EXPECT_THAT(header.status().message(), HasSubstr("[safetensors] m.safetensors: "));
  EXPECT_THAT(header.status().message(), HasSubstr(GetParam().message));
}

std::string Tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":)" + Tensor(dtype, shape, offsets) + "}";
}

std::string Two(const std::string& first, const std::string& second) {
  return R"({"a":)" + Tensor("F32", "[2]", first) + R"(,"b":)" + Tensor("F32", "[2]", second) + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Offsets, HostileHeaderTest,
    ::testing::Values(
        Hostile{Two("[0,8]", "[4,12]"), 12, "tensor b: offsets [4, 12) overlap"},
        Hostile{Two("[0,8]", "[0,8]"), 8, "tensor b: offsets [0, 8) overlap"},
        Hostile{Two("[0,8]", "[12,20]"), 20,
                "tensor b: offsets [12, 20) leave a gap behind byte 8"},
        Hostile{One("F32", "[2]", "[4,12]"), 12, "tensor w: offsets [4, 12) leave a gap"},
        Hostile{One("F32", "[2]", "[8,0]"), 8, "tensor w: offsets [8, 0) end before they begin"},
        Hostile{One("F32", "[2]", "[0,8]"), 7, "lie outside the file, which has 7 bytes of data"},
        Hostile{One("F32", "[2]", "[0,8]"), 9, "got 9 bytes of data, the tensors take 8"},
        Hostile{One("F32", "[2]", "[0,4]"), 4, "hold 4 bytes, F32 [2] needs 8"},
        Hostile{One("U8", "[0]", "[18446744073709551615,18446744073709551615]"), 0, "out of range"},
        Hostile{One("U8", "[2]", "[9223372036854775805,9223372036854775807]"), 2, "leave a gap"},
        Hostile{One("F32", "[2]", "[0]"), 8, "data_offsets: got 1 numbers, wanted 2"},
        Hostile{One("F32", "[2]", "[0,4,8]"), 8, "data_offsets: more than two numbers"},
        Hostile{One("F32", "[2]", "[-4,4]"), 8, "data_offsets: got the number -4"},
        Hostile{One("F32", "[2]", "[0,8.0]"), 8, "data_offsets: got the number 8.0"},
        Hostile{One("F32", "[2]", "[0,\"8\"]"), 8, "data_offsets: got a string"}));

INSTANTIATE_TEST_SUITE_P(
    Shapes, HostileHeaderTest,
    ::testing::Values(
        Hostile{One("F32", "[4294967296,4294967296]", "[0,0]"), 0,
                "more bytes than can be counted"},
        Hostile{One("F32", "[4611686018427387904]", "[0,0]"), 0, "more bytes than can be counted"},
        Hostile{One("F64", "[4294967296,4294967296,0]", "[0,0]"), 0,
                "more bytes than can be counted"},
        Hostile{One("F32", "[9223372036854775808]", "[0,0]"), 0, "9223372036854775808 is out of"},
        Hostile{One("F32", "[-2]", "[0,8]"), 8, "shape: got the number -2"},
        Hostile{One("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "more than 8 dimensions"},
        Hostile{One("F32", "[[2]]", "[0,8]"), 8, "shape: got an array"},
        Hostile{One("F32", "2", "[0,8]"), 8, "shape: got the number 2, wanted an array"}));

INSTANTIATE_TEST_SUITE_P(
    Fields, HostileHeaderTest,
    ::testing::Values(
        Hostile{One("F8_E4M3", "[2]", "[0,2]"), 2,
                "tensor w: unknown dtype \"F8_E4M3\", wanted one of F64, F32"},
        Hostile{One("f32", "[2]", "[0,8]"), 8, "unknown dtype \"f32\""},
        Hostile{R"({"w":{"dtype":"F32","shape":[2]}})", 8, "field data_offsets is missing"},
        Hostile{R"({"w":{"shape":[2],"data_offsets":[0,8]}})", 8, "field dtype is missing"},
        Hostile{R"({"w":{"dtype":"F32","data_offsets":[0,8]}})", 8, "field shape is missing"},
        Hostile{R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":[1]}})", 8,
                "tensor w extra: unknown field"},
        Hostile{R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8,
                "tensor w dtype: given twice"},
        Hostile{R"({"w":)" + Tensor("U8", "[1]", "[0,1]") + R"(,"w":)" +
                    Tensor("U8", "[1]", "[1,2]") + "}",
                2, "tensor w: named twice"},
        Hostile{R"({"":)" + Tensor("U8", "[1]", "[0,1]") + "}", 1, "a tensor without a name"},
        Hostile{"{\"" + std::string(300, 'n') + "\":1}", 0, "name of 300 bytes"},
        Hostile{R"({"w":[1]})", 0, "tensor w: got an array, wanted an object"},
        Hostile{R"({"w":null})", 0, "tensor w: got null"},
        Hostile{R"({"w":{"dtype":{}}})", 0, "got an object, wanted a string"},
        Hostile{R"({"w":{"dtype":true}})", 0, "got a boolean, wanted a string"},
        Hostile{R"({"__metadata__":{"k":1}})", 0, "__metadata__ k: got the number 1"},
        Hostile{R"({"__metadata__":{"k":"a","k":"b"}})", 0, "__metadata__ k: given twice"},
        Hostile{R"({"__metadata__":"text"})", 0, "got a string, wanted an object"}));

INSTANTIATE_TEST_SUITE_P(
    Json, HostileHeaderTest,
    ::testing::Values(Hostile{"{", 0, "header is not JSON"}, Hostile{"{]", 0, "header is not JSON"},
                      Hostile{"{}x", 0, "header is not JSON"},
                      Hostile{"{\"a\xFF\":1}", 0, "header is not JSON"},
                      Hostile{" {}", 0, "header does not begin with {"},
                      Hostile{"[]", 0, "header does not begin with {"},
                      Hostile{R"({"w":)" + std::string(100000, '['), 0, "wanted an object"}));

TEST(SafetensorsHeaderTest, AnImpossibleHeaderLengthIsRefusedBeforeMemoryIsTaken) {
  EXPECT_THAT(Parse(WithLength(0, "{}")).status().message(), HasSubstr("header length is 0"));
  for (const uint64_t length : {uint64_t{1} << 63, ~uint64_t{0}, (uint64_t{100} << 20) + 1}) {
    const auto header = Parse(WithLength(length, "{}"));
    EXPECT_EQ(header.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(header.status().message(), HasSubstr("header length is"));
    EXPECT_THAT(header.status().message(), HasSubstr("wanted at most 104857600"));
  }
}

TEST(SafetensorsHeaderTest, AFileCutAnywhereIsADataLossOrRefused) {
  const std::string whole = FileOf(Two("[0,8]", "[8,16]"), 16);
  ASSERT_TRUE(Parse(whole).ok()) << Parse(whole).status();
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto header = Parse(whole.substr(0, size));
    ASSERT_FALSE(header.ok()) << "cut to " << size;
    EXPECT_EQ(header.status().code(), Code::kDataLoss) << header.status();
    EXPECT_THAT(header.status().message(), HasSubstr("truncated"));
  }
}

TEST(SafetensorsHeaderTest, GivesTensorsInTheOrderOfTheirBytesWithAbsoluteOffsets) {
  const std::string json = R"({"__metadata__":{"z":"1","a":"2"},"late":)" +
                           Tensor("BF16", "[2,3]", "[8,20]") + R"(,"early":)" +
                           Tensor("I64", "[]", "[0,8]") + R"(,"none":)" +
                           Tensor("F32", "[0,7]", "[20,20]") + "}    ";
  const auto header = Parse(FileOf(json, 20));
  ASSERT_TRUE(header.ok()) << header.status();
  const uint64_t data = 8 + json.size();
  const std::vector<TensorInfo> wanted = {{"early", DType::kInt64, {}, data, data + 8},
                                          {"late", DType::kBFloat16, {2, 3}, data + 8, data + 20},
                                          {"none", DType::kFloat32, {0, 7}, data + 20, data + 20}};
  EXPECT_EQ(header.value().tensors, wanted);
  const SafetensorsMetadata metadata = {{"z", "1"}, {"a", "2"}};
  EXPECT_EQ(header.value().metadata, metadata);
}

TEST(SafetensorsHeaderTest, EveryElementTypeHasItsNameAndSize) {
  for (const DTypeInfo& info : kDTypes) {
    const std::string bytes = std::to_string(3 * info.bytes);
    const auto header =
        Parse(FileOf(One(std::string(info.name), "[3]", "[0," + bytes + "]"), 3 * info.bytes));
    ASSERT_TRUE(header.ok()) << header.status();
    EXPECT_EQ(header.value().tensors[0].dtype, info.dtype);
    EXPECT_EQ(DTypeFromName(info.name), info.dtype);
    EXPECT_EQ(DTypeFromNumber(static_cast<uint64_t>(info.dtype)), info.dtype);
  }
  EXPECT_EQ(DTypeFromNumber(kDTypes.size()), std::nullopt);
}

TEST(SafetensorsHeaderTest, ShapesAreShownAndCounted) {
  EXPECT_EQ(ShapeText({}), "[]");
  EXPECT_EQ(ShapeText({4, 64}), "[4×64]");
  EXPECT_EQ(TensorBytes(DType::kFloat32, {}), 4u);
  EXPECT_EQ(TensorBytes(DType::kBFloat16, {3, 5}), 30u);
  EXPECT_EQ(TensorBytes(DType::kFloat32, {0}), 0u);
  EXPECT_EQ(TensorBytes(DType::kFloat32, {-1}), std::nullopt);
}

}  // namespace
}  // namespace weft
