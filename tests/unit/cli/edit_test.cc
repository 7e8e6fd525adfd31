// `weft edit` as a script sees it, on a small random model.

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/set_up.h"
#include "common/formats/safetensors.h"
#include "common/tensor/dtype_map.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class EditCommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = (temp_.path() / "model").string();
    ASSERT_TRUE(weft::testing::WriteSmallModel(model_).ok());
    edits_ = temp_
                 .Write("edits.jsonl",
                        R"({"prompt":"the ship is","target_new":"red","paraphrases":["a ship is"]}
{"prompt":"the dog is","target_new":"blue"}
{"prompt":"the cat was"}
{"prompt":"one day a boy"}
)")
                 .string();
    out_ = (temp_.path() / "out").string();
  }

  Outcome Edit(std::vector<std::string> more) const {
    more.push_back("--json");
    return Execute(SetUpEdit, Over({{"--model", model_},
                                    {"--edits", edits_},
                                    {"--out", out_},
                                    {"--max-edits", "2"},
                                    {"--target-modules", "all-linear"},
                                    {"--lr", "0.02"},
                                    {"--steps", "80"},
                                    {"--threads", "1"}},
                                   more));
  }

  // Entries of the written weights that are not those of the model, and all of them.
  std::pair<int64_t, int64_t> Changed(const std::string& folder) const {
    const SafetensorsFile before = *SafetensorsFile::Open(fs::path(model_) / "model.safetensors");
    const SafetensorsFile after = *SafetensorsFile::Open(fs::path(folder) / "model.safetensors");
    int64_t changed = 0;
    int64_t all = 0;
    for (const StoredTensor& tensor : after.tensors()) {
      const StoredTensor* const old = before.Find(tensor.name);
      const at::Tensor a = TensorOver(tensor.bytes, tensor.dtype, tensor.shape);
      const at::Tensor b = TensorOver(old->bytes, old->dtype, old->shape);
      changed += a.view(at::kInt).ne(b.view(at::kInt)).sum().item<int64_t>();
      all += a.numel();
    }
    return {changed, all};
  }

  weft::testing::TempFolder temp_;
  std::string model_;
  std::string edits_;
  std::string out_;
};

TEST_F(EditCommandTest, NewAnswersAreLearntAndWhatChangedIsReported) {
  const Outcome outcome = Edit({"--option", "keep=0.1", "--loss-below", "0.5"});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json json = Json::parse(outcome.out);
  EXPECT_EQ(json["edits"], 2);
  EXPECT_EQ(json["efficacy"], 1.0) << outcome.out;
  EXPECT_EQ(json["efficacy_before"], 0.0);
  EXPECT_TRUE(json["failed_lines"].empty());
  EXPECT_EQ(json["paraphrases"], 1);
  EXPECT_TRUE(json["generality"].is_number());
  EXPECT_EQ(json["others"], 2);
  EXPECT_TRUE(json["locality"].is_number());
  EXPECT_LT(json["steps"].get<int>(), 80) << "ends early";
  EXPECT_GT(json["steps"].get<int>(), 64) << "but not before pruning does, at 0.8";
  // The shares are of the files as they are.
  const auto [changed, all] = Changed(out_);
  EXPECT_EQ(json["weights"], all);
  EXPECT_NEAR(json["weights_same"].get<double>(),
              1 - static_cast<double>(changed) / static_cast<double>(all), 1e-12);
  EXPECT_GT(changed, 0);
  EXPECT_LT(json["adapter_nonzero"].get<int64_t>(), json["adapter_numbers"].get<int64_t>() / 4);
  EXPECT_TRUE(fs::exists(fs::path(out_) / "tokenizer.json"));
}

TEST_F(EditCommandTest, EditsMadeAloneAreMeasuredAloneAndNothingIsWritten) {
  const Outcome outcome =
      Execute(SetUpEdit, {"--model", model_, "--edits", edits_, "--max-edits", "2", "--each",
                          "--json", "--target-modules", "all-linear", "--lr", "0.02", "--steps",
                          "40", "--threads", "1", "--option", "keep=0.1"});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json json = Json::parse(outcome.out);
  EXPECT_EQ(json["efficacy"], 1.0) << outcome.out;
  EXPECT_EQ(json["paraphrases"], 1);
  EXPECT_EQ(json["others"], 2);
  EXPECT_GT(json["steps"].get<int>(), 40) << "of both edits";
  EXPECT_EQ(json["weights"], Changed(model_).second);
  EXPECT_GT(json["adapted_same"].get<double>(), 0.3);
  EXPECT_EQ(Edit({"--each"}).status.code(), Code::kInvalidArgument) << "--out says otherwise";
}

TEST_F(EditCommandTest, LoraLearnsTheSameAndTouchesMoreWeights) {
  const Json rose = Json::parse(Edit({"--option", "keep=0.1"}).out);
  out_ = (temp_.path() / "lora").string();
  const Outcome outcome = Edit({"--method", "lora"});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json lora = Json::parse(outcome.out);
  EXPECT_EQ(lora["efficacy"], 1.0) << outcome.out;
  EXPECT_LT(lora["adapted_same"].get<double>(), 0.1);
  EXPECT_GT(rose["adapted_same"].get<double>(), 0.3);
}

TEST_F(EditCommandTest, WithoutOthersOrParaphrasesThereIsNothingToReport) {
  const Outcome outcome = Edit({"--max-others", "0", "--steps", "2", "--batch", "1"});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json json = Json::parse(outcome.out);
  EXPECT_TRUE(json["locality"].is_null());
  EXPECT_EQ(json["steps"], 2);
}

TEST_F(EditCommandTest, WhatCannotBeDoneIsSaidBeforeAnythingIsWritten) {
  const Outcome unanswered = Edit({"--max-edits", "3"});
  EXPECT_EQ(unanswered.status.code(), Code::kInvalidArgument);
  EXPECT_NE(unanswered.status.message().find("edits.jsonl:3: no new answer"), std::string::npos)
      << unanswered.status;
  EXPECT_EQ(Edit({"--option", "keep=0"}).status.code(), Code::kInvalidArgument);
  EXPECT_EQ(Edit({"--out", model_}).status.code(), Code::kAlreadyExists);
  EXPECT_FALSE(fs::exists(fs::path(out_) / "model.safetensors"));
  EXPECT_NE(Edit({"--others", "/nowhere.jsonl"}).status.code(), Code::kOk);
}

}  // namespace
}  // namespace weft::cli
