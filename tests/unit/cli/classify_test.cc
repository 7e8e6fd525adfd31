// `weft train` and `weft eval` on encoders and labelled rows, and multiple choice on decoders.

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/set_up.h"
#include "common/adapters/peft_io.h"
#include "common/formats/safetensors.h"
#include "tests/support/small_encoder.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

using Json = nlohmann::json;

class ClassifyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = (temp_.path() / "encoder").string();
    ASSERT_TRUE(weft::testing::WriteSmallEncoder(model_).ok());
    data_ = temp_.Write("rows.jsonl", weft::testing::SmallSentiment(40)).string();
    out_ = (temp_.path() / "out").string();
  }

  Outcome Train(std::vector<std::string> more) const {
    more.push_back("--json");
    return Execute(SetUpTrain, Over({{"--model", model_},
                                     {"--data", data_},
                                     {"--eval-data", data_},
                                     {"--out", out_},
                                     {"--lr", "0.02"},
                                     {"--rank", "4"},
                                     {"--target-modules", "query,value"},
                                     {"--steps", "40"},
                                     {"--batch", "8"},
                                     {"--threads", "1"}},
                                    more));
  }

  Outcome Eval(const std::vector<std::string>& more) const {
    std::vector<std::string> args = {"--model", model_, "--data", data_, "--json"};
    args.insert(args.end(), more.begin(), more.end());
    return Execute(SetUpEval, args);
  }

  weft::testing::TempFolder temp_;
  std::string model_;
  std::string data_;
  std::string out_;
};

TEST_F(ClassifyTest, AdapterAndHeadLearnAndAreReadAgainWithTheNamesOfTheirClasses) {
  const Outcome outcome = Train({});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json json = Json::parse(outcome.out);
  EXPECT_GT(json["eval_accuracy_after"].get<double>(), 0.95) << json;
  EXPECT_LT(json["eval_loss_after"].get<double>(), 0.5 * json["eval_loss_before"].get<double>());
  EXPECT_EQ(json["label_tokens"], 40 * 8) << "one label a row";
  EXPECT_TRUE(json.contains("eval_f1_after"));
  EXPECT_TRUE(json.contains("eval_matthews_after"));
  EXPECT_FALSE(json.contains("eval_pearson_after")) << "the classes are no numbers";

  const Result<PeftFolder> written = ReadPeft(out_, {});
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->state.spec.labels, (std::vector<std::string>{"bad", "good"}));
  EXPECT_EQ(written->state.spec.modules_to_save, (std::vector<std::string>{"classifier"}));
  EXPECT_EQ(written->config.task_type, "SEQ_CLS");
  ASSERT_EQ(written->state.dense.size(), 4u);
  EXPECT_EQ(written->state.dense[1].name, "classifier.dense.weight");
  EXPECT_EQ(written->state.dense[3].value.sizes(), (std::vector<int64_t>{2, 16}));
  const auto file = SafetensorsFile::Open(out_ + "/adapter_model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_NE(file->Find("base_model.model.classifier.out_proj.weight"), nullptr);

  const Outcome evaluated = Eval({"--adapter", out_});
  ASSERT_TRUE(evaluated.status.ok()) << evaluated.status;
  const Json scores = Json::parse(evaluated.out);
  EXPECT_EQ(scores["accuracy"], json["eval_accuracy_after"]);
  EXPECT_EQ(scores["f1"], json["eval_f1_after"]);
  EXPECT_NEAR(scores["loss"].get<double>(), json["eval_loss_after"].get<double>(), 1e-5);
  EXPECT_EQ(scores["rows"], 40);
  EXPECT_FALSE(scores.contains("perplexity"));
}

TEST_F(ClassifyTest, TrainingGoesOnFromTheHeadThatWasWritten) {
  const Outcome first = Train({"--steps", "20"});
  ASSERT_TRUE(first.status.ok()) << first.status;
  const std::string start = out_;
  out_ = (temp_.path() / "second").string();
  const Outcome second =
      Execute(SetUpTrain, {"--model", model_, "--data", data_, "--eval-data", data_, "--out", out_,
                           "--adapter-init", start, "--steps", "1", "--threads", "1", "--json"});
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_NEAR(Json::parse(second.out)["eval_loss_before"].get<double>(),
              Json::parse(first.out)["eval_loss_after"].get<double>(), 1e-5);
}

TEST_F(ClassifyTest, NumberedClassesHaveACorrelation) {
  data_ = temp_.Write("numbers.jsonl", weft::testing::SmallSentiment(40, true)).string();
  const Outcome outcome = Train({});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json scores = Json::parse(Eval({"--adapter", out_}).out);
  EXPECT_GT(scores["pearson"].get<double>(), 0.9) << scores;
  EXPECT_NEAR(scores["pearson"].get<double>(), scores["matthews"].get<double>(), 1e-9);
}

TEST_F(ClassifyTest, TheSameSeedTrainsTheSameHead) {
  ASSERT_TRUE(Train({"--steps", "3"}).status.ok());
  const std::string first = out_;
  out_ = (temp_.path() / "again").string();
  ASSERT_TRUE(Train({"--steps", "3"}).status.ok());
  const auto a = ReadPeft(first, {}), b = ReadPeft(out_, {});
  out_ = (temp_.path() / "other").string();
  ASSERT_TRUE(Train({"--steps", "3", "--seed", "2"}).status.ok());
  const auto c = ReadPeft(out_, {});
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(at::equal(a->state.dense[i].value, b->state.dense[i].value));
  }
  EXPECT_FALSE(at::equal(a->state.dense[1].value, c->state.dense[1].value));
}

TEST_F(ClassifyTest, AllWeightsTrainWithAHead) {
  const Outcome outcome =
      Execute(SetUpTrain, {"--model", model_, "--data",
                           temp_.Write("n.jsonl", weft::testing::SmallSentiment(40, true)).string(),
                           "--eval-data", data_, "--out", out_, "--full", "--steps", "30", "--lr",
                           "0.003", "--threads", "1", "--json"});
  // The names of the rows that are evaluated are unknown to the model: its own are LABEL_0,
  // LABEL_1.
  EXPECT_NE(outcome.status.message().find("is none of the 2 known ones (LABEL_0 … LABEL_1)"),
            std::string::npos)
      << outcome.status;
  data_ = (temp_.path() / "n.jsonl").string();
  const Outcome numbered =
      Execute(SetUpTrain, {"--model", model_, "--data", data_, "--eval-data", data_, "--out", out_,
                           "--full", "--steps", "30", "--lr", "0.003", "--threads", "1", "--json"});
  ASSERT_TRUE(numbered.status.ok()) << numbered.status;
  model_ = out_;
  const Outcome evaluated = Eval({});
  ASSERT_TRUE(evaluated.status.ok()) << evaluated.status;
  EXPECT_EQ(Json::parse(evaluated.out)["accuracy"],
            Json::parse(numbered.out)["eval_accuracy_after"]);
}

TEST_F(ClassifyTest, WhatCannotClassifySaysWhatToDo) {
  EXPECT_NE(Eval({}).status.message().find("no classification head"), std::string::npos);
  const std::string text = temp_.Write("text.jsonl", R"({"text":"the ship"})").string();
  EXPECT_NE(Train({"--data", text}).status.message().find("no class to learn"), std::string::npos);
  const Outcome generated =
      Execute(SetUpGenerate, {"--model", model_, "--prompt", "the ship", "--max-new-tokens", "2"});
  EXPECT_FALSE(generated.status.ok());
  const std::string decoder = (temp_.path() / "decoder").string();
  ASSERT_TRUE(weft::testing::WriteSmallModel(decoder).ok());
  EXPECT_NE(Train({"--model", decoder, "--labels", "a,b", "--target-modules", "all-linear"})
                .status.message()
                .find("has no classes"),
            std::string::npos);
  EXPECT_NE(Eval({"--choices", "a,b"}).status.message().find("no classification head"),
            std::string::npos);
}

TEST_F(ClassifyTest, ADecoderChoosesAmongAnswers) {
  model_ = (temp_.path() / "decoder").string();
  ASSERT_TRUE(weft::testing::WriteSmallModel(model_).ok());
  std::string rows;
  for (int i = 0; i < 12; ++i) {
    const bool ship = i % 2 == 0;
    rows += Json{{"prompt", ship ? "it sails" : "it flies"},
                 {"completion", ship ? "the answer is A" : "the answer is B"}}
                .dump() +
            "\n";
  }
  data_ = temp_.Write("choices.jsonl", rows).string();
  const Outcome trained = Train({"--target-modules", "all-linear", "--lr", "0.01"});
  ASSERT_TRUE(trained.status.ok()) << trained.status;
  const Outcome outcome = Eval({"--adapter", out_, "--choices", "A,B"});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const Json scores = Json::parse(outcome.out);
  EXPECT_EQ(scores["accuracy"], 1.0) << scores;
  EXPECT_EQ(scores["rows"], 12);
  EXPECT_LT(scores["nll"].get<double>(), 0.7) << scores;
  EXPECT_EQ(scores["bins"], 15);
  EXPECT_TRUE(scores["ece"].is_number() && scores["brier"].is_number()) << scores;
  EXPECT_NE(Eval({"--choices", "C,D"}).status.message().find("ends in none of the 2 choices"),
            std::string::npos);
}

}  // namespace
}  // namespace weft::cli
