// Training runs of transformers + PEFT (tests/golden/train, see its README) reproduced: the loss of
// each step within 1e-4, gradient norms within 1e-3, the adapter afterwards within 1e-3 relative
// Frobenius distance (float32, one thread against theirs: sums in another order).

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "client/trainer.h"
#include "common/adapters/adapter.h"
#include "common/adapters/distance.h"
#include "common/adapters/peft_io.h"
#include "common/evaluate/evaluate_rows.h"
#include "common/model/bind_adapter.h"
#include "tests/support/paths.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

class TrainParity : public ::testing::TestWithParam<const char*> {
 protected:
  static nlohmann::json ReadJson(const fs::path& path) {
    std::ifstream in(path);
    return nlohmann::json::parse(in);
  }

  static double EvalLoss(const Model& model, const AdapterState& state,
                         const std::vector<TokenRow>& rows) {
    const at::NoGradGuard no_grad;
    const AdapterBinding binding = {*FactorsFor(model, state)};
    JobControl control;
    return EvaluateRows(model, binding, rows, 4, control)->loss;
  }
};

TEST_P(TrainParity, StepLossesAndTheAdapterAreThoseOfPeft) {
  WEFT_NEEDS_SHARED();
  at::set_num_threads(1);
  const fs::path folder = testing::GoldenDir() / "train" / GetParam();
  const nlohmann::json expect = ReadJson(folder / "expect.json");
  const auto model = Model::Load(testing::SharedDir() / "models" / "stories260k", {});
  ASSERT_TRUE(model.ok()) << model.status();
  auto init = ReadPeft(folder / "init", (*model)->sites());
  ASSERT_TRUE(init.ok()) << init.status();
  const auto batches = ReadFixedBatches(folder / "batches.jsonl", (*model)->config().vocab_size);
  ASSERT_TRUE(batches.ok()) << batches.status();
  TrainInput input;
  std::vector<TokenRow> eval;
  for (const FixedBatch& batch : *batches) {
    if (batch.split == "eval") {
      eval.insert(eval.end(), batch.rows.begin(), batch.rows.end());
      continue;
    }
    std::vector<const TokenRow*> rows;
    for (const TokenRow& row : batch.rows) rows.push_back(&row);
    input.fixed_batches.push_back(std::move(rows));
  }
  input.start = init->state;
  input.training.lr = expect["optimizer"]["lr"].get<double>();
  input.training.weight_decay = expect["optimizer"]["weight_decay"].get<double>();
  input.training.grad_clip = expect["optimizer"]["grad_clip"].get<double>();
  EXPECT_NEAR(EvalLoss(**model, init->state, eval), expect["eval_loss_before"].get<double>(), 5e-4);
  JobControl control;
  const auto output = Train(**model, std::move(input), control);
  ASSERT_TRUE(output.ok()) << output.status();
  ASSERT_EQ(output->steps.size(), expect["step_loss"].size());
  for (size_t i = 0; i < output->steps.size(); ++i) {
    const double loss = expect["step_loss"][i].get<double>();
    EXPECT_NEAR(output->steps[i].loss, loss, 1e-4 * loss) << "step " << i + 1;
    const double norm = expect["grad_norm_before_clip"][i].get<double>();
    EXPECT_NEAR(output->steps[i].grad_norm, norm, 1e-3 * norm) << "step " << i + 1;
  }
  const auto after = ReadPeft(folder / "after", (*model)->sites());
  ASSERT_TRUE(after.ok()) << after.status();
  const LowRankAdapter wanted = *Lower(after->state);
  EXPECT_LT(DistanceBetween(*Lower(output->state), wanted) / DistanceBetween(wanted, {}), 1e-3);
  EXPECT_NEAR(EvalLoss(**model, output->state, eval), expect["eval_loss_after"].get<double>(),
              5e-4);
}

INSTANTIATE_TEST_SUITE_P(Golden, TrainParity,
                         ::testing::Values("qv_r8", "all_r4_pattern", "rslora_r16"));

}  // namespace
}  // namespace weft
