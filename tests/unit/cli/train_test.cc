// `weft train` and `weft adapter …` as a script sees them, on a small random model.

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/set_up.h"
#include "common/adapters/peft_io.h"
#include "common/formats/safetensors.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class TrainCommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = (temp_.path() / "model").string();
    ASSERT_TRUE(weft::testing::WriteSmallModel(model_).ok());
    std::string rows;
    for (int i = 0; i < 12; ++i) {
      rows += Json{{"prompt", "ship " + std::to_string(i)}, {"completion", "sails north"}}.dump();
      rows += "\n";
    }
    data_ = temp_.Write("rows.jsonl", rows).string();
    out_ = (temp_.path() / "out").string();
  }

  Outcome Train(std::vector<std::string> more) const {
    more.push_back("--json");
    return Execute(SetUpTrain, Over({{"--model", model_},
                                     {"--data", data_},
                                     {"--out", out_},
                                     {"--lr", "0.01"},
                                     {"--max-len", "32"},
                                     {"--threads", "1"}},
                                    more));
  }

  weft::testing::TempFolder temp_;
  std::string model_;
  std::string data_;
  std::string out_;
};

TEST_F(TrainCommandTest, OneJsonObjectSaysEveryStepsLossAndTheAdapterIsWritten) {
  const Outcome outcome = Train({"--steps", "6", "--batch", "4", "--rank", "2", "--target-modules",
                                 "q_proj,v_proj", "--eval-data", data_});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json json = Json::parse(outcome.out);
  EXPECT_EQ(json["step_loss"].size(), 6u);
  EXPECT_LT(json["eval_loss_after"].get<double>(), json["eval_loss_before"].get<double>());
  const Result<PeftFolder> written = ReadPeft(out_, {});
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->state.sites.size(), 4u);
  EXPECT_EQ(written->config.spec.alpha, 4);  // twice the rank
  EXPECT_EQ(written->config.base_model, model_);
}

TEST_F(TrainCommandTest, TrainingGoesOnFromAPeftFolder) {
  ASSERT_TRUE(Train({"--steps", "5", "--batch", "12", "--rank", "2"}).status.ok());
  const std::string first = out_;
  out_ = (temp_.path() / "second").string();
  const Outcome outcome = Train({"--steps", "1", "--batch", "12", "--adapter-init", first});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const double resumed = Json::parse(outcome.out)["step_loss"][0].get<double>();
  out_ = (temp_.path() / "fresh").string();
  const Outcome fresh = Train({"--steps", "1", "--batch", "12", "--rank", "2"});
  EXPECT_LT(resumed, Json::parse(fresh.out)["step_loss"][0].get<double>());
}

TEST_F(TrainCommandTest, ARankAboveALayersSizeIsCappedThere) {
  ASSERT_TRUE(Train({"--steps", "1", "--rank", "40"}).status.ok());
  const Result<PeftFolder> written = ReadPeft(out_, {});
  ASSERT_TRUE(written.ok()) << written.status();
  for (const SiteState& site : written->state.sites) {
    EXPECT_EQ(site.Get("A").size(0), std::min({int64_t{40}, site.site.in, site.site.out}));
  }
}

TEST_F(TrainCommandTest, FullTrainingWritesAModelFolderThatTrainsOn) {
  const Outcome outcome = Train({"--full", "--steps", "3", "--batch", "12"});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
    EXPECT_TRUE(fs::exists(fs::path(out_) / name)) << name;
  }
  model_ = out_;
  out_ = (temp_.path() / "on").string();
  const Outcome on = Train({"--steps", "1", "--batch", "12"});
  ASSERT_TRUE(on.status.ok()) << on.status;
  EXPECT_LT(Json::parse(on.out)["step_loss"][0].get<double>(),
            Json::parse(outcome.out)["step_loss"][0].get<double>());
}

TEST_F(TrainCommandTest, WhatCannotWorkIsSaid) {
  const auto message = [&](std::vector<std::string> more) {
    return Train(std::move(more)).status.message();
  };
  EXPECT_NE(message({"--rank", "0"}).find("rank is 0"), std::string::npos);
  EXPECT_NE(message({"--target-modules", "query"}).find("\"query\" matches no linear layer"),
            std::string::npos);
  EXPECT_NE(message({"--lr", "-1"}).find("lr is -1"), std::string::npos);
  EXPECT_NE(message({"--batches", data_}).find("one of --data and --batches"), std::string::npos);
  data_ = temp_.Write("empty.jsonl", "").string();
  EXPECT_NE(message({}).find("empty.jsonl"), std::string::npos);
}

TEST_F(TrainCommandTest, AdaptersAreInspectedAndSurviveTheWayThroughABlock) {
  ASSERT_TRUE(Train({"--steps", "4", "--rank", "2"}).status.ok());
  const Outcome folder = Execute(SetUpAdapterInspect, {out_, "--json"});
  ASSERT_TRUE(folder.status.ok()) << folder.status;
  const Json inspected = Json::parse(folder.out);
  EXPECT_EQ(inspected["sites"].size(), 14u);
  EXPECT_GT(inspected["norm"].get<double>(), 0);
  const std::string block = (temp_.path() / "adapter.block").string();
  ASSERT_TRUE(Execute(SetUpAdapterImport, {out_, "--out", block}).status.ok());
  const Outcome of_block = Execute(SetUpAdapterInspect, {block, "--json"});
  ASSERT_TRUE(of_block.status.ok()) << of_block.status;
  EXPECT_EQ(Json::parse(of_block.out)["sha256"], inspected["sha256"]);
  const std::string back = (temp_.path() / "back").string();
  ASSERT_TRUE(Execute(SetUpAdapterExport, {block, "--out", back, "--base-model", "x"}).status.ok());
  const Outcome again = Execute(SetUpAdapterInspect, {back, "--json"});
  EXPECT_EQ(Json::parse(again.out)["norm"], inspected["norm"]);
  EXPECT_EQ(Json::parse(again.out)["base_model"], "x");
}

TEST_F(TrainCommandTest, MergedModelComputesWhatModelAndAdapterDo) {
  const Outcome trained =
      Train({"--steps", "8", "--batch", "12", "--rank", "2", "--eval-data", data_});
  ASSERT_TRUE(trained.status.ok()) << trained.status;
  const std::string merged = (temp_.path() / "merged").string();
  const Outcome merge =
      Execute(SetUpAdapterMerge, {"--model", model_, "--adapter", out_, "--out", merged});
  ASSERT_TRUE(merge.status.ok()) << merge.status;
  model_ = merged;
  out_ = (temp_.path() / "on").string();
  const Outcome on = Train({"--steps", "1", "--batch", "12", "--rank", "2", "--eval-data", data_});
  ASSERT_TRUE(on.status.ok()) << on.status;
  EXPECT_NEAR(Json::parse(on.out)["eval_loss_before"].get<double>(),
              Json::parse(trained.out)["eval_loss_after"].get<double>(), 1e-5);
}

TEST_F(TrainCommandTest, MergeKeepsTheStoredTypeAndRefusesToOverwriteItsSource) {
  ASSERT_TRUE(Train({"--steps", "2", "--rank", "2"}).status.ok());
  EXPECT_EQ(Execute(SetUpAdapterMerge, {"--model", model_, "--adapter", out_, "--out", model_})
                .status.code(),
            Code::kAlreadyExists);
  const auto before = *SafetensorsFolder::Open(model_);
  const std::string merged = (temp_.path() / "merged").string();
  ASSERT_TRUE(Execute(SetUpAdapterMerge, {"--model", model_, "--adapter", out_, "--out", merged})
                  .status.ok());
  const auto after = *SafetensorsFolder::Open(merged);
  ASSERT_EQ(after.tensors().size(), before.tensors().size());
  size_t changed = 0;
  for (const StoredTensor& tensor : after.tensors()) {
    const StoredTensor* old = before.Find(tensor.name);
    ASSERT_NE(old, nullptr) << tensor.name;
    EXPECT_EQ(tensor.dtype, old->dtype);
    changed += tensor.bytes.view() != old->bytes.view();
  }
  EXPECT_EQ(changed, 14u);  // the adapted layers and no others
}

TEST_F(TrainCommandTest, WhatIsNoAdapterIsSaid) {
  EXPECT_EQ(Execute(SetUpAdapterInspect, {"/nowhere"}).status.code(), Code::kNotFound);
  EXPECT_FALSE(Execute(SetUpAdapterInspect, {data_}).status.ok());
  EXPECT_FALSE(Execute(SetUpAdapterMerge, {"--model", temp_.path().string(), "--adapter", out_,
                                           "--out", (temp_.path() / "m").string()})
                   .status.ok());
}

}  // namespace
}  // namespace weft::cli
