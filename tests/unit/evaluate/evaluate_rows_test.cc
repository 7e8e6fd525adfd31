// The loss over rows: what it is a mean of, and what becomes of memory, cancellation and NaN.

#include "common/evaluate/evaluate_rows.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace weft {
namespace {

/// A model whose loss of a label is known: its token's number. Counts what it is asked.
class CountingModel final : public Model {
 public:
  const ModelConfig& config() const override { return config_; }
  const std::vector<LinearSite>& sites() const override { return sites_; }
  at::Device device() const override { return at::Device(at::kCPU); }
  at::ScalarType dtype() const override { return at::kFloat; }
  at::Tensor LossSum(const PackedBatch& batch, const AdapterBinding&,
                     const ForwardOptions& options) const override {
    EXPECT_FALSE(options.training) << "no dropout in evaluation";
    EXPECT_FALSE(at::GradMode::is_enabled()) << "no tape in evaluation";
    rows_.push_back(batch.num_rows());
    if (batch.num_rows() > rows_max) TORCH_CHECK_WITH(OutOfMemoryError, false, "out of memory");
    at::Tensor loss = batch.labels_L.sum().to(at::kFloat);
    if ((batch.labels_L == poison).any().item<bool>()) loss = loss * std::nan("");
    return loss;
  }
  at::Tensor Logits(const PackedBatch&, const AdapterBinding&) const override { return {}; }
  std::unique_ptr<Cache> NewCache() const override { return nullptr; }
  at::Tensor Step(const at::Tensor&, Cache&, const AdapterBinding&) const override { return {}; }
  std::vector<NamedTensor> TrainableWeights() const override { return {}; }
  std::vector<NamedTensor> AllWeights() const override { return {}; }

  int64_t rows_max = std::numeric_limits<int64_t>::max();
  int64_t poison = -1;
  [[nodiscard]] const std::vector<int64_t>& rows() const { return rows_; }

 private:
  ModelConfig config_;
  std::vector<LinearSite> sites_;
  mutable std::vector<int64_t> rows_;
};

// Row i has i + 1 labels, each of value i.
std::vector<TokenRow> Rows(int count) {
  std::vector<TokenRow> rows;
  for (int i = 0; i < count; ++i) {
    TokenRow row;
    row.ids.assign(static_cast<size_t>(i) + 2, i);
    row.labels = row.ids;
    rows.push_back(std::move(row));
  }
  return rows;
}

TEST(EvaluateRowsTest, TheLossIsTheMeanOverLabelsNotOverRowsOrBatches) {
  const std::vector<TokenRow> rows = Rows(5);
  for (const int64_t batch : {1, 2, 3, 5, 100}) {
    const CountingModel model;
    JobControl control;
    const Result<RowsLoss> total = EvaluateRows(model, {}, rows, batch, control);
    ASSERT_TRUE(total.ok()) << total.status();
    EXPECT_EQ(total->label_tokens, 15u);
    EXPECT_EQ(total->num_examples, 5u);
    EXPECT_DOUBLE_EQ(total->loss, (1 * 0 + 2 * 1 + 3 * 2 + 4 * 3 + 5 * 4) / 15.0) << batch;
    EXPECT_EQ(control.progress.load(), 1);
  }
}

TEST(EvaluateRowsTest, ABatchThatDoesNotFitIsTakenInHalves) {
  CountingModel model;
  model.rows_max = 2;
  JobControl control;
  const Result<RowsLoss> total = EvaluateRows(model, {}, Rows(7), 7, control);
  ASSERT_TRUE(total.ok()) << total.status();
  EXPECT_EQ(total->label_tokens, 28u);
  // 7 → 3 + 4, 3 → 1 + 2, 4 → 2 + 2.
  EXPECT_EQ(model.rows(), (std::vector<int64_t>{7, 3, 1, 2, 4, 2, 2}));
}

TEST(EvaluateRowsTest, OneRowThatDoesNotFitIsResourceExhausted) {
  CountingModel model;
  model.rows_max = 0;
  JobControl control;
  EXPECT_EQ(EvaluateRows(model, {}, Rows(3), 2, control).status().code(), Code::kResourceExhausted);
}

TEST(EvaluateRowsTest, ALossThatIsNoNumberNamesItsRows) {
  CountingModel model;
  model.poison = 4;
  JobControl control;
  const Status status = EvaluateRows(model, {}, Rows(6), 2, control).status();
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_NE(status.message().find("rows 4 to 5"), std::string::npos) << status;
}

TEST(EvaluateRowsTest, CancelledEvaluationStops) {
  const CountingModel model;
  JobControl control;
  control.cancelled = true;
  EXPECT_EQ(EvaluateRows(model, {}, Rows(3), 2, control).status().code(), Code::kCancelled);
  EXPECT_TRUE(model.rows().empty());
}

TEST(EvaluateRowsTest, RowsWithoutLabelsHaveNoLossAndNoRowsAreNoTrouble) {
  std::vector<TokenRow> rows = Rows(2);
  for (TokenRow& row : rows) std::fill(row.labels.begin(), row.labels.end(), kNoLabel);
  const CountingModel model;
  JobControl control;
  for (const std::vector<TokenRow>& some : {rows, std::vector<TokenRow>{}}) {
    const Result<RowsLoss> total = EvaluateRows(model, {}, some, 2, control);
    ASSERT_TRUE(total.ok()) << total.status();
    EXPECT_EQ(total->loss, 0);
    EXPECT_EQ(total->label_tokens, 0u);
    EXPECT_EQ(total->num_examples, some.size());
  }
}

}  // namespace
}  // namespace weft
