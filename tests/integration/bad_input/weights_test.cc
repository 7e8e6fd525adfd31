// Damaged and hostile weight files, met by the built program. What each byte means is tested at
// unit level; here, that a user is told the file, the tensor, what it has and what was wanted.

#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "tests/integration/bad_input/damaged_model.h"

namespace weft::testing {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kQ = "model.layers.0.self_attn.q_proj.weight";
constexpr const char* kK = "model.layers.0.self_attn.k_proj.weight";

TEST(BadWeightsTest, TheUndamagedCopyWorksSoThatFailuresBelowHaveTheirReason) {
  EXPECT_TRUE(Succeeded(DamagedModel().Eval()));
}

TEST(BadWeightsTest, AMissingFileSaysWhatIsWanted) {
  const DamagedModel model;
  model.Remove(kWeights);
  EXPECT_TRUE(Refused(model.Eval(), {model.folder(), kWeights, kIndex}));
  model.Write("pytorch_model.bin", "x");
  EXPECT_TRUE(Refused(model.Eval(), {"pytorch_model.bin", "save the model as safetensors"}));
}

TEST(BadWeightsTest, AFileCutAnywhereIsTruncated) {
  const DamagedModel model;
  const WeightFile whole = WeightFile::Read(kTinyModel / kWeights);
  const std::string bytes = whole.Bytes();
  for (const size_t size : {size_t{0}, size_t{5}, size_t{8}, size_t{100},
                            bytes.size() - whole.data.size() + 9, bytes.size() - 1}) {
    model.Write(kWeights, bytes.substr(0, size));
    EXPECT_TRUE(Refused(model.Eval(), {model.File(kWeights), "truncated"})) << size;
  }
  model.Write(kWeights, bytes + "x");
  EXPECT_TRUE(Refused(model.Eval(), {model.File(kWeights), "bytes of data, the tensors take"}));
}

TEST(BadWeightsTest, AHeaderLengthThatCannotBeIsNotBelieved) {
  const DamagedModel model;
  const std::string rest = WeightFile::Read(kTinyModel / kWeights).Bytes().substr(8);
  for (const uint64_t length :
       {uint64_t{1} << 63, std::numeric_limits<uint64_t>::max(), uint64_t{1} << 30, uint64_t{0}}) {
    model.Write(kWeights, WithLength(length, rest));
    EXPECT_TRUE(Refused(model.Eval(),
                        {model.File(kWeights), "header length is " + std::to_string(length)}));
  }
}

TEST(BadWeightsTest, AHeaderThatIsNoJsonIsRefused) {
  const DamagedModel model;
  const std::string data = WeightFile::Read(kTinyModel / kWeights).data;
  for (const char* header : {"hello", "[]", "{\"a\":", "{\"a\" 5}", "\xFF\xFE{}"}) {
    const std::string text = header;
    model.Write(kWeights, WithLength(text.size(), text + data));
    EXPECT_TRUE(Refused(model.Eval(), {model.File(kWeights), "header"})) << text;
  }
  const std::string deep = "{" + [] {
    std::string nest;
    for (int i = 0; i < 100000; ++i) nest += "\"a\":{";
    return nest;
  }();
  model.Write(kWeights, WithLength(deep.size(), deep + data));
  EXPECT_TRUE(Refused(model.Eval(), {model.File(kWeights)}));
}

TEST(BadWeightsTest, ATensorThatIsNamedTwiceIsNamed) {
  const DamagedModel model;
  const WeightFile file = WeightFile::Read(kTinyModel / kWeights);
  std::string text = file.header.dump();
  text.back() = ',';
  text += "\"" + std::string(kQ) + "\":" + file.header[kQ].dump() + "}";
  model.Write(kWeights, WithLength(text.size(), text + file.data));
  EXPECT_TRUE(Refused(model.Eval(), {kQ, "named twice"}));
}

struct HeaderCase {
  const char* what;
  void (*edit)(Json& tensor);
  std::vector<std::string> words;
};

class BadHeaderTest : public ::testing::TestWithParam<HeaderCase> {};

TEST_P(BadHeaderTest, IsRefusedByTensor) {
  const DamagedModel model;
  model.Weights([&](WeightFile& file) { GetParam().edit(file.header[kQ]); });
  EXPECT_TRUE(Refused(model.Eval(), GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(
    EveryWay, BadHeaderTest,
    ::testing::Values(
        HeaderCase{"Overlap",
                   [](Json& tensor) {
                     for (Json& offset : tensor["data_offsets"])
                       offset = offset.get<int64_t>() - 64;
                   },
                   {kQ, "overlap the tensor that ends at"}},
        HeaderCase{
            "BeyondTheFile",
            [](Json& tensor) {
              tensor["data_offsets"] = {int64_t{1} << 40, (int64_t{1} << 40) + 4 * 128 * 128};
            },
            {kWeights, "leave a gap behind byte"}},
        HeaderCase{"NegativeOffset",
                   [](Json& tensor) {
                     tensor["data_offsets"] = {-4, 65532};
                   },
                   {kQ, "got the number -4"}},
        HeaderCase{
            "OffsetsReversed",
            [](Json& tensor) { std::swap(tensor["data_offsets"][0], tensor["data_offsets"][1]); },
            {kQ, "end before they begin"}},
        HeaderCase{"UnknownDtype",
                   [](Json& tensor) { tensor["dtype"] = "F7"; },
                   {kQ, "unknown dtype \"F7\"", "BF16"}},
        HeaderCase{"IntegerWeights",
                   [](Json& tensor) { tensor["dtype"] = "I32"; },
                   {kQ, "got I32, wanted F32, F16 or BF16"}},
        HeaderCase{"OtherShape",
                   [](Json& tensor) {
                     tensor["shape"] = {64, 256};
                   },
                   {kQ, "got [64×256]", "asks for [128×128]"}},
        HeaderCase{"ShapeThatOverflows",
                   [](Json& tensor) {
                     tensor["shape"] = {int64_t{1} << 40, int64_t{1} << 40};
                   },
                   {kQ, "more bytes than can be counted"}},
        HeaderCase{"ZeroTimesHuge",
                   [](Json& tensor) {
                     tensor["shape"] = {0, int64_t{1} << 62};
                   },
                   {kQ, "more bytes than can be counted"}},
        HeaderCase{"NegativeShape",
                   [](Json& tensor) {
                     tensor["shape"] = {-128, -128};
                   },
                   {kQ, "got the number -128"}},
        HeaderCase{"NoShape",
                   [](Json& tensor) { tensor.erase("shape"); },
                   {kQ, "field shape is missing"}}),
    [](const auto& one) { return one.param.what; });

TEST(BadWeightsTest, AMissingAndASuperfluousTensorAreNamed) {
  const DamagedModel model;
  model.Weights([](WeightFile& file) {
    file.header["renamed"] = file.header[kQ];
    file.header.erase(kQ);
  });
  EXPECT_TRUE(Refused(model.Eval(), {model.folder(), kQ, "is missing", "[128×128]"}));
  model.Weights([](WeightFile& file) {
    const size_t end = file.data.size();
    file.header["model.extra.weight"] = {
        {"dtype", "F32"}, {"shape", {0}}, {"data_offsets", {end, end}}};
  });
  EXPECT_TRUE(Refused(model.Eval(), {"model.extra.weight", "LlamaForCausalLM"}));
}

TEST(BadWeightsTest, WhatAFileSaysCannotSpeakToTheTerminal) {
  const DamagedModel model;
  model.Weights([](WeightFile& file) {
    const size_t end = file.data.size();
    file.header["\x1B[2J\nweft eval: done\xC2\x9B"] = {
        {"dtype", "F32"}, {"shape", {0}}, {"data_offsets", {end, end}}};
  });
  const Ran hostile = model.Eval();
  EXPECT_TRUE(Refused(hostile, {" [2J weft eval: done "}));
  EXPECT_EQ(hostile.err.find('\x1B'), std::string::npos);
  EXPECT_EQ(hostile.err.find("\xC2\x9B"), std::string::npos);
  EXPECT_EQ(hostile.err.find('\n') + 1, hostile.err.size()) << "more than one line";
}

TEST(BadWeightsTest, WeightsThatAreNoNumbersStopEveryCommandThatComputes) {
  const DamagedModel model;
  model.Weights([](WeightFile& file) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(file.data.data() + file.header[kQ]["data_offsets"][0].get<size_t>(), &nan, 4);
  });
  EXPECT_TRUE(Refused(model.Eval(), {"[eval]", "not finite", "check the weights"}));
  EXPECT_TRUE(Refused(Execute("weft", {"generate", "--model", model.folder(), "--prompt", "the"}),
                      {"[generate]", "not finite"}));
  const std::string out = model.File("out");
  const Ran train = Execute("weft", {"train", "--model", model.folder(), "--data", kTinyRows,
                                     "--out", out, "--steps", "1"});
  EXPECT_TRUE(Refused(train, {"step 1: the loss is", "nothing of this step was kept"}));
  EXPECT_FALSE(std::filesystem::exists(out + "/adapter_model.safetensors"));
}

// ---- shards ----

class BadShardsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const WeightFile whole = WeightFile::Read(kTinyModel / kWeights);
    model_.Remove(kWeights);
    WeightFile shards[2] = {{Json::object(), ""}, {Json::object(), ""}};
    size_t number = 0;
    for (const auto& [name, tensor] : whole.header.items()) {
      if (name == "__metadata__") continue;
      const size_t which = number++ % 2;
      WeightFile& shard = shards[which];
      const size_t begin = tensor["data_offsets"][0];
      const size_t size = tensor["data_offsets"][1].get<size_t>() - begin;
      Json placed = tensor;
      placed["data_offsets"] = {shard.data.size(), shard.data.size() + size};
      shard.header[name] = placed;
      shard.data += whole.data.substr(begin, size);
      map_[name] = NameOf(which);
    }
    for (size_t i = 0; i < 2; ++i) model_.Write(NameOf(i), shards[i].Bytes());
    WriteIndex(map_);
  }

  static std::string NameOf(size_t i) {
    return "model-0000" + std::to_string(i + 1) + "-of-00002.safetensors";
  }
  void WriteIndex(const Json& map) const { model_.Write(kIndex, Json{{"weight_map", map}}.dump()); }

  DamagedModel model_;
  Json map_ = Json::object();
};

TEST_F(BadShardsTest, WholeShardsWork) { EXPECT_TRUE(Succeeded(model_.Eval())); }

TEST_F(BadShardsTest, AMissingShardIsNamed) {
  model_.Remove(NameOf(1));
  EXPECT_TRUE(Refused(model_.Eval(), {model_.File(NameOf(1)), "missing", "fetch the model again"}));
}

TEST_F(BadShardsTest, AnIndexMayNotReachOutOfTheFolder) {
  for (const Json& file : {Json("../model.safetensors"), Json("/etc/passwd"), Json(".."), Json(""),
                           Json("a/b"), Json(std::string("x\0y", 3)), Json(5), Json(nullptr)}) {
    Json map = map_;
    map[kK] = file;
    WriteIndex(map);
    EXPECT_TRUE(Refused(model_.Eval(), {kIndex, kK, "wanted the name of a file in this folder"}))
        << file;
  }
}

TEST_F(BadShardsTest, AnIndexThatContradictsItsShardsIsRefused) {
  Json map = map_;
  map.erase(kQ);
  WriteIndex(map);
  EXPECT_TRUE(Refused(model_.Eval(), {kQ, "does not list it"}));
  map = map_;
  map["ghost"] = NameOf(0);
  WriteIndex(map);
  EXPECT_TRUE(Refused(model_.Eval(), {"ghost", "is missing"}));
  map = map_;
  map[kQ] = map_[kQ] == NameOf(0) ? NameOf(1) : NameOf(0);
  WriteIndex(map);
  EXPECT_TRUE(Refused(model_.Eval(), {kQ, "says it is in"}));
}

TEST_F(BadShardsTest, AnIndexThatIsNoIndexIsRefused) {
  for (const std::string& text :
       {std::string("{\"weight_map\":"), std::string("[]"), std::string("{\"weight_map\":{}}"),
        std::string("{\"weight_map\":[1]}"),
        "{\"weight_map\":{\"a\":" + std::string(200000, '[') + std::string(200000, ']') + "}}"}) {
    model_.Write(kIndex, text);
    EXPECT_TRUE(Refused(model_.Eval(), {model_.File(kIndex)})) << text.substr(0, 40);
  }
}

}  // namespace
}  // namespace weft::testing
