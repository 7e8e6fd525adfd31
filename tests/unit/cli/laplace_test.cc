// `weft laplace fit|federate|predict` on a small encoder.

#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/set_up.h"
#include "common/laplace/statistics_file.h"
#include "tests/support/small_encoder.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

using Json = nlohmann::json;

class LaplaceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = File("encoder");
    ASSERT_TRUE(weft::testing::WriteSmallEncoder(model_).ok());
    const std::string rows = weft::testing::SmallSentiment(40);
    size_t half = 0;
    for (int line = 0; line < 17; ++line) half = rows.find('\n', half) + 1;
    temp_.Write("all.jsonl", rows);
    temp_.Write("first.jsonl", rows.substr(0, half));
    temp_.Write("second.jsonl", rows.substr(half));
    const Outcome trained = Execute(
        SetUpTrain, {"--model", model_, "--data", File("all.jsonl"), "--out", File("adapter"),
                     "--lr", "0.01", "--rank", "3", "--target-modules", "query,value", "--steps",
                     "10", "--batch", "8", "--threads", "1", "--json"});
    ASSERT_TRUE(trained.status.ok()) << trained.status;
  }

  [[nodiscard]] std::string File(const std::string& name) const {
    return (temp_.path() / name).string();
  }
  Outcome Fit(const std::string& rows, const std::string& out) const {
    return Execute(SetUpLaplaceFit, {"--model", model_, "--adapter", File("adapter"), "--data",
                                     File(rows), "--out", File(out), "--json"});
  }

  weft::testing::TempFolder temp_;
  std::string model_;
};

TEST_F(LaplaceTest, StatisticsOfTwoSitesAddUpToThoseOfAllRowsInOnePlace) {
  for (const auto& [rows, out] : {std::pair("all.jsonl", "all.st"),
                                  {"first.jsonl", "first.st"},
                                  {"second.jsonl", "second.st"}}) {
    const Outcome fitted = Fit(rows, out);
    ASSERT_TRUE(fitted.status.ok()) << fitted.status;
  }
  const Outcome together =
      Execute(SetUpLaplaceFederate, {"--adapter", File("adapter"), "--out", File("sum.st"),
                                     "--json", File("second.st"), File("first.st")});
  ASSERT_TRUE(together.status.ok()) << together.status;
  const StatisticsFile all = ReadStatistics(File("all.st")).value();
  const StatisticsFile sum = ReadStatistics(File("sum.st")).value();
  EXPECT_EQ(sum.statistics.examples, 40u);
  EXPECT_NEAR(sum.statistics.log_likelihood, all.statistics.log_likelihood, 1e-6);
  EXPECT_NEAR(*sum.precision / *all.precision, 1, 1e-6);
  ASSERT_EQ(sum.statistics.matrices.size(), all.statistics.matrices.size());
  for (size_t m = 0; m < sum.statistics.matrices.size(); ++m) {
    const MatrixStatistics& got = sum.statistics.matrices[m];
    const MatrixStatistics& wanted = all.statistics.matrices[m];
    EXPECT_EQ(got.rows, wanted.rows);
    EXPECT_TRUE(at::allclose(got.input.values(), wanted.input.values(), 1e-6, 1e-9)) << got.name;
    EXPECT_TRUE(at::allclose(got.output.values(), wanted.output.values(), 1e-6, 1e-9)) << got.name;
  }
}

TEST_F(LaplaceTest, PredictionsSayHowWellTheyAreCalibratedBesideTheAdapterAlone) {
  ASSERT_TRUE(Fit("all.jsonl", "all.st").status.ok());
  const auto predict = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args = {"--model",     model_,         "--adapter", File("adapter"),
                                     "--posterior", File("all.st"), "--data",    File("all.jsonl"),
                                     "--samples",   "500",          "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome outcome = Execute(SetUpLaplacePredict, args);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return Json::parse(outcome.out);
  };
  const Json report = predict({});
  EXPECT_EQ(report["rows"], 40);
  for (const char* which : {"map", "laplace"}) {
    for (const char* key : {"accuracy", "nll", "ece", "brier"}) {
      EXPECT_TRUE(report[which][key].is_number()) << which << key;
    }
  }
  EXPECT_EQ(predict({}), report) << "draws come from the seed";
  // The precision that suits these rows best cannot suit them worse than the evidence's.
  const Json chosen = predict({"--validation", File("all.jsonl")});
  EXPECT_NE(chosen["precision"], report["precision"]);
  EXPECT_LE(chosen["laplace"]["nll"].get<double>(), report["laplace"]["nll"].get<double>() + 1e-3);
  // A prior that leaves no doubt is the adapter itself.
  const Json sure = predict({"--precision", "1e11"});
  EXPECT_NEAR(sure["laplace"]["nll"].get<double>(), sure["map"]["nll"].get<double>(), 1e-3);
}

TEST_F(LaplaceTest, StatisticsOfAnotherAdapterAndSpoiltFilesAreRefused) {
  ASSERT_TRUE(Fit("first.jsonl", "first.st").status.ok());
  StatisticsFile file = ReadStatistics(File("first.st")).value();
  file.statistics.adapter_hash[0] = file.statistics.adapter_hash[0] == 'a' ? 'b' : 'a';
  ASSERT_TRUE(WriteStatistics(File("other.st"), file).ok());
  const Outcome mixed = Execute(SetUpLaplaceFederate, {"--adapter", File("adapter"), "--out",
                                                       File("sum.st"), File("other.st")});
  EXPECT_EQ(mixed.status.code(), Code::kFailedPrecondition);
  EXPECT_NE(mixed.status.message().find("another adapter"), std::string::npos) << mixed.status;
  file.precision = -1;
  ASSERT_TRUE(WriteStatistics(File("negative.st"), file).ok());
  EXPECT_NE(ReadStatistics(File("negative.st")).status().message().find("positive"),
            std::string::npos);
  file.precision.reset();
  file.statistics.matrices[0].name = file.statistics.matrices[1].name;
  ASSERT_TRUE(WriteStatistics(File("doubled.st"), file).ok());
  EXPECT_EQ(ReadStatistics(File("doubled.st")).status().code(), Code::kInvalidArgument);
  temp_.Write("text.st", "no statistics");
  EXPECT_FALSE(ReadStatistics(File("text.st")).ok());
  EXPECT_FALSE(ReadStatistics(File("adapter/adapter_model.safetensors")).ok());
}

TEST_F(LaplaceTest, ADecodersChoicesAreItsClasses) {
  const std::string decoder = File("decoder");
  ASSERT_TRUE(weft::testing::WriteSmallModel(decoder).ok());
  std::string rows;
  for (int i = 0; i < 12; ++i) {
    rows += Json{{"prompt", i % 3 == 0 ? "it sails" : "it flies"},
                 {"completion", i % 2 == 0 ? "the answer is A" : "the answer is B"}}
                .dump() +
            "\n";
  }
  temp_.Write("choices.jsonl", rows);
  ASSERT_TRUE(Execute(SetUpTrain, {"--model", decoder, "--data", File("choices.jsonl"), "--out",
                                   File("lora"), "--lr", "0.01", "--rank", "2", "--target-modules",
                                   "q_proj,v_proj", "--steps", "5", "--threads", "1", "--json"})
                  .status.ok());
  const std::vector<std::string> common = {
      "--model", decoder, "--adapter", File("lora"), "--data", File("choices.jsonl"), "--json"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    return more;
  };
  const Outcome fitted =
      Execute(SetUpLaplaceFit, with({"--choices", "A,B", "--out", File("lora.st")}));
  ASSERT_TRUE(fitted.status.ok()) << fitted.status;
  EXPECT_EQ(Json::parse(fitted.out)["examples"], 12);
  const Outcome predicted =
      Execute(SetUpLaplacePredict,
              with({"--choices", "A,B", "--posterior", File("lora.st"), "--samples", "200"}));
  ASSERT_TRUE(predicted.status.ok()) << predicted.status;
  const Json report = Json::parse(predicted.out);
  EXPECT_EQ(report["rows"], 12);
  EXPECT_LT(report["map"]["nll"].get<double>(), 1.5) << report;
  EXPECT_NE(
      Execute(SetUpLaplaceFit, with({"--out", File("no.st")})).status.message().find("--choices"),
      std::string::npos);
  EXPECT_NE(
      Execute(SetUpLaplaceFit, {"--model", model_, "--adapter", File("adapter"), "--data",
                                File("all.jsonl"), "--choices", "A,B", "--out", File("no.st")})
          .status.message()
          .find("classes of its own"),
      std::string::npos);
}

TEST_F(LaplaceTest, APriorPrecisionIsAFiniteNumberAboveZero) {
  for (const char* bad : {"0", "-1", "inf", "nan", "1e400", "much"}) {
    try {
      Execute(SetUpLaplaceFit, {"--model", model_, "--adapter", File("adapter"), "--data",
                                File("all.jsonl"), "--out", File("no.st"), "--precision", bad});
      ADD_FAILURE() << bad;
    } catch (const CLI::ParseError& error) {
      EXPECT_NE(std::string(error.what()).find("wanted a number above 0"), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace weft::cli
