// Predicted classes and chosen answers on models whose logits are known.

#include "common/evaluate/evaluate_classes.h"

#include <limits>

#include <gtest/gtest.h>

#include "common/evaluate/evaluate_choices.h"

namespace weft {
namespace {

/// Logits of the token at a labelled position p: `logits(token)`. A loss is their cross-entropy.
class KnownModel final : public Model {
 public:
  using Logits1 = std::function<std::vector<float>(int64_t token)>;
  explicit KnownModel(Logits1 logits) : logits_(std::move(logits)) {}

  const ModelConfig& config() const override { return config_; }
  const std::vector<LinearSite>& sites() const override { return sites_; }
  at::Device device() const override { return at::Device(at::kCPU); }
  at::ScalarType dtype() const override { return at::kFloat; }
  at::Tensor LossSum(const PackedBatch& batch, const AdapterBinding& adapters,
                     const ForwardOptions&) const override {
    return at::cross_entropy_loss(Logits(batch, adapters), batch.labels_L, {}, at::Reduction::Sum);
  }
  at::Tensor Logits(const PackedBatch& batch, const AdapterBinding&) const override {
    rows_.push_back(batch.num_rows());
    if (batch.num_rows() > rows_max) TORCH_CHECK_WITH(OutOfMemoryError, false, "out of memory");
    std::vector<at::Tensor> all;
    for (int64_t i = 0; i < batch.label_at_L.size(0); ++i) {
      all.push_back(at::tensor(logits_(batch.ids_N[batch.label_at_L[i]].item<int64_t>())));
    }
    return at::stack(all);
  }
  std::unique_ptr<Cache> NewCache() const override { return nullptr; }
  at::Tensor Step(const at::Tensor&, Cache&, const AdapterBinding&) const override { return {}; }
  std::vector<NamedTensor> TrainableWeights() const override { return {}; }
  std::vector<NamedTensor> AllWeights() const override { return {}; }

  int64_t rows_max = std::numeric_limits<int64_t>::max();
  [[nodiscard]] const std::vector<int64_t>& rows() const { return rows_; }

 private:
  Logits1 logits_;
  ModelConfig config_;
  std::vector<LinearSite> sites_;
  mutable std::vector<int64_t> rows_;
};

// Row i begins with token i and has the class given.
std::vector<TokenRow> Rows(const std::vector<int32_t>& classes) {
  std::vector<TokenRow> rows;
  for (size_t i = 0; i < classes.size(); ++i) {
    rows.push_back({.ids = {static_cast<int32_t>(i), 9}, .labels = {}, .row_class = classes[i]});
  }
  return rows;
}

// Says class (token mod 3) with log-odds of 2.
std::vector<float> ByToken(int64_t token) {
  std::vector<float> logits(3, 0);
  logits[static_cast<size_t>(token % 3)] = 2;
  return logits;
}

TEST(EvaluateClassesTest, TheLargestLogitIsTheClassAndTheLossAMeanOverRows) {
  const KnownModel model(ByToken);
  const std::vector<TokenRow> rows = Rows({0, 1, 2, 0, 0});
  for (const int64_t batch : {1, 2, 5, 100}) {
    JobControl control;
    const auto result = EvaluateClasses(model, {}, rows, {"a", "b", "c"}, batch, control);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->predicted, (std::vector<int32_t>{0, 1, 2, 0, 1}));
    EXPECT_DOUBLE_EQ(result->scores.accuracy, 0.8);
    const double all = std::log(std::exp(2.0) + 2);
    EXPECT_NEAR(result->loss, (4 * (all - 2) + all) / 5, 1e-6);
    // Every row is held likely by as much, so all lie in one bin.
    const double sure = std::exp(2 - all);
    EXPECT_NEAR(result->calibration.nll, result->loss, 1e-12);
    EXPECT_NEAR(result->calibration.ece, std::abs(0.8 - sure), 1e-6);
    EXPECT_EQ(result->calibration.bins, kCalibrationBins);
    EXPECT_FLOAT_EQ(control.progress, 1);
  }
}

TEST(EvaluateClassesTest, ABatchThatDoesNotFitIsHalvedAndOneRowThatDoesNotIsAnError) {
  KnownModel model(ByToken);
  model.rows_max = 2;
  const std::vector<TokenRow> rows = Rows({0, 1, 2, 0, 1});
  JobControl control;
  const auto result = EvaluateClasses(model, {}, rows, {"a", "b", "c"}, 5, control);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_DOUBLE_EQ(result->scores.accuracy, 1);
  EXPECT_EQ(model.rows(), (std::vector<int64_t>{5, 2, 3, 1, 2}));
  model.rows_max = 0;
  EXPECT_EQ(EvaluateClasses(model, {}, rows, {"a", "b", "c"}, 5, control).status().code(),
            Code::kResourceExhausted);
}

TEST(EvaluateClassesTest, WhatCannotBeJudgedIsAnError) {
  const std::vector<TokenRow> rows = Rows({0, 1});
  JobControl control;
  const KnownModel model(ByToken);
  const auto other = EvaluateClasses(model, {}, rows, {"a", "b"}, 2, control);
  EXPECT_NE(other.status().message().find("3 classes apart, the labels name 2"), std::string::npos);
  const KnownModel broken([](int64_t) { return std::vector<float>{NAN, 0, 0}; });
  EXPECT_EQ(EvaluateClasses(broken, {}, rows, {"a", "b", "c"}, 2, control).status().code(),
            Code::kInternal);
  control.cancelled = true;
  EXPECT_EQ(EvaluateClasses(model, {}, rows, {"a", "b", "c"}, 2, control).status().code(),
            Code::kCancelled);
}

// ---- multiple choice ----

ChoiceRow Choice(std::vector<int32_t> shared, std::vector<std::vector<int32_t>> answers,
                 int32_t right) {
  return {std::move(shared), std::move(answers), right};
}

TEST(EvaluateChoicesTest, TheAnswersFirstTokenDecidesWhereItTellsThemApart) {
  // After token t the model expects token t + 1.
  const KnownModel model([](int64_t token) {
    std::vector<float> logits(8, 0);
    logits[static_cast<size_t>((token + 1) % 8)] = 3;
    return logits;
  });
  const std::vector<ChoiceRow> rows = {
      Choice({1, 2}, {{5}, {3, 1, 1}}, 1),   // 3 follows 2
      Choice({4}, {{5}, {6}}, 0),            // 5 follows 4
      Choice({4}, {{1}, {6}}, 1),            // equal logits: the first
      Choice({1}, {{2, 5}, {2, 3}}, 1),      // not told apart by the first token: 3 follows 2
      Choice({1}, {{2, 3, 4}, {2, 3}}, 1)};  // the shorter has one token less to doubt
  for (const int64_t batch : {1, 3, 10}) {
    JobControl control;
    const auto result = EvaluateChoices(model, {}, rows, batch, control);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->predicted, (std::vector<int32_t>{1, 0, 0, 1, 1}));
    EXPECT_DOUBLE_EQ(result->scores.accuracy, 0.8);
    EXPECT_FALSE(result->scores.pearson.has_value());
    EXPECT_DOUBLE_EQ(result->calibration.accuracy, 0.8);
    // −log p of the right answer among the two: by logits in the first three rows, then by whole
    // answers, of which 3 is likelier than 5 after 2 by a factor of e³.
    const auto loss = [](double margin) { return std::log1p(std::exp(-margin)); };
    const double doubt = std::log(std::exp(3.0) + 7) - 3;  // of the token that follows
    const double wanted = loss(3) + loss(3) + loss(0) + loss(3) + loss(doubt);
    EXPECT_NEAR(result->calibration.nll, wanted / 5, 1e-6);
  }
}

TEST(ChoiceClassesTest, AreTokensThatEveryRowSharesInFrontOfThem) {
  std::vector<ChoiceRow> rows = {Choice({1, 2}, {{5}, {3}}, 1), Choice({4}, {{5, 6}, {3}}, 0)};
  const Result<ChoiceClasses> classes = AsClasses(rows);
  ASSERT_TRUE(classes.ok()) << classes.status();
  EXPECT_EQ(classes->answers, (std::vector<int32_t>{5, 3}));
  EXPECT_EQ(classes->rows[0].ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(classes->rows[0].row_class, 1);
  rows.push_back(Choice({4}, {{3}, {5}}, 0));
  EXPECT_NE(AsClasses(rows).status().message().find("row 3"), std::string::npos);
  const std::vector<ChoiceRow> alike = {Choice({4}, {{5, 1}, {5, 2}}, 0)};
  EXPECT_NE(AsClasses(alike).status().message().find("row 1"), std::string::npos);
}

class TokenizeChoicesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loaded =
        Tokenizer::Load(std::filesystem::path(WEFT_SOURCE_DIR) / "examples" / "tiny" / "model");
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = std::move(loaded).value();
  }

  Result<std::vector<ChoiceRow>> Tokens(const std::string& line,
                                        const std::vector<std::string>& choices,
                                        int64_t max_len = 200) {
    const Result<Row> row = ParseRow(line, "test.jsonl", 7);
    EXPECT_TRUE(row.ok()) << row.status();
    return TokenizeChoices({&*row, 1}, choices, *tokenizer_, max_len);
  }

  // The text up to and with one answer.
  std::string TextOf(const ChoiceRow& row, size_t answer) const {
    std::vector<int32_t> ids = row.shared;
    ids.insert(ids.end(), row.answers[answer].begin(), row.answers[answer].end());
    return tokenizer_->Decode(ids, true);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(TokenizeChoicesTest, EveryChoiceStandsWhereTheRightOneDoes) {
  const auto rows = Tokens(R"({"instruction":"true or false?","output":"the answer is false"})",
                           {"true", "false"});
  ASSERT_TRUE(rows.ok()) << rows.status();
  const ChoiceRow& row = (*rows)[0];
  EXPECT_EQ(row.right, 1);
  EXPECT_EQ(TextOf(row, 0), "true or false?\nthe answer is true");
  EXPECT_EQ(TextOf(row, 1), "true or false?\nthe answer is false");
  EXPECT_NE(row.answers[0][0], row.answers[1][0]) << "what they share is no part of them";
}

TEST_F(TokenizeChoicesTest, TheLongestEndingChoiceIsMeant) {
  const auto rows =
      Tokens(R"({"prompt":"x","completion":"answer12"})", {"2", "12", "answer12", "answer2"});
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ((*rows)[0].right, 2);
}

TEST_F(TokenizeChoicesTest, ARowsOwnChoicesCount) {
  const auto rows = Tokens(R"({"prompt":"sea","choices":["ship","shore"],"answer":1})", {"a", "b"});
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ((*rows)[0].right, 1);
  EXPECT_EQ(TextOf((*rows)[0], 0), "sea\nship");
}

TEST_F(TokenizeChoicesTest, ALongPromptLosesItsBeginning) {
  const std::string line = R"({"input":"one two three four five six seven","output":"A"})";
  const auto whole = Tokens(line, {"A", "B"});
  ASSERT_TRUE(whole.ok()) << whole.status();
  const auto cut = Tokens(line, {"A", "B"}, 6);
  ASSERT_TRUE(cut.ok()) << cut.status();
  const std::vector<int32_t>& all = (*whole)[0].shared;
  const std::vector<int32_t>& end = (*cut)[0].shared;
  ASSERT_LT(end.size(), all.size());
  EXPECT_LE(end.size() + (*cut)[0].answers[0].size(), 6u);
  EXPECT_TRUE(std::equal(end.rbegin(), end.rend(), all.rbegin()));
}

TEST_F(TokenizeChoicesTest, RowsThatAreNoQuestionsAreNamed) {
  const auto error = [&](const std::string& line, const std::vector<std::string>& choices) {
    return Tokens(line, choices).status().message();
  };
  const std::string row = R"({"prompt":"x","completion":"maybe"})";
  EXPECT_NE(error(row, {"yes", "no"}).find("line 7: \"maybe\" ends in none of the 2 choices"),
            std::string::npos);
  EXPECT_NE(error(row, {"maybe", "maybe"}).find("all different"), std::string::npos);
  EXPECT_NE(error(row, {"maybe"}).find("at least two"), std::string::npos);
  EXPECT_NE(error(R"({"text":"maybe"})", {"maybe", "no"}).find("wanted a prompt"),
            std::string::npos);
}

}  // namespace
}  // namespace weft
