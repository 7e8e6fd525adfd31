// The memory plan: estimates that a choice of micro-batches rests on.

#include "client/memory_plan.h"

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"
#include "tests/unit/client/trainer_fixture.h"

namespace weft {
namespace {

class MemoryPlanTest : public testing::TrainerTest {
 protected:
  static MemoryPlan Plan(const LocalTraining& training, MemoryRequest request) {
    return PlanMemory(*model_, training, request);
  }
  static constexpr MemoryRequest kRoomy = {
      .trained_parameters = 1000, .longest_row = 64, .available_bytes = int64_t{1} << 40};
};

TEST_F(MemoryPlanTest, TheBaseIsTheModelsOwnTensors) {
  int64_t bytes = 0;
  for (const NamedTensor& weight : model_->AllWeights()) bytes += 4 * weight.value.numel();
  EXPECT_EQ(Plan({}, kRoomy).base_bytes, bytes);
  const auto half = LoadModel({.dtype = at::kBFloat16, .token_by_token = true});
  EXPECT_EQ(PlanMemory(*half, {}, kRoomy).base_bytes, bytes / 2);
}

TEST_F(MemoryPlanTest, ParametersNeedGradientsAndTwoMoments) {
  const MemoryPlan plan = Plan({}, kRoomy);
  EXPECT_EQ(plan.adapter_bytes, 1000 * (4 + 4));
  EXPECT_EQ(plan.optimizer_bytes, 1000 * (4 + 4));
}

TEST_F(MemoryPlanTest, WithPlentyOfMemoryTheWholeBatchIsOneMicroBatch) {
  LocalTraining training;
  training.batch_size = 32;
  EXPECT_EQ(Plan(training, kRoomy).micro_batch_rows, 32);
  MemoryRequest unknown = kRoomy;
  unknown.available_bytes = 0;
  EXPECT_EQ(Plan(training, unknown).micro_batch_rows, 32);
}

TEST_F(MemoryPlanTest, LessMemoryMeansSmallerMicroBatchesThatFitInFourFifthsOfIt) {
  LocalTraining training;
  training.batch_size = 24;
  const MemoryPlan whole = Plan(training, kRoomy);
  int64_t last = whole.micro_batch_rows;
  bool fell = false;
  for (int64_t free = 2 * whole.training_bytes(); free > whole.fixed_bytes; free -= free / 50) {
    MemoryRequest request = kRoomy;
    request.available_bytes = free;
    const MemoryPlan plan = Plan(training, request);
    EXPECT_LE(plan.micro_batch_rows, last) << free;
    EXPECT_GE(plan.micro_batch_rows, 1);
    if (plan.micro_batch_rows > 1) {
      EXPECT_LE(static_cast<double>(plan.training_bytes()), 0.8 * static_cast<double>(free));
    }
    fell = fell || plan.micro_batch_rows < whole.micro_batch_rows;
    last = plan.micro_batch_rows;
  }
  EXPECT_TRUE(fell);
  EXPECT_EQ(last, 1) << "one row is tried whatever the estimate says";
}

TEST_F(MemoryPlanTest, AGivenMicroBatchIsNotSecondGuessed) {
  LocalTraining training;
  training.batch_size = 24;
  training.micro_batch_size = 7;
  MemoryRequest request = kRoomy;
  request.available_bytes = 1;
  EXPECT_EQ(Plan(training, request).micro_batch_rows, 7);
}

TEST_F(MemoryPlanTest, ActivationsGrowWithRowsTokensAndPrecisionAndShrinkWithCheckpointing) {
  const MemoryPlan plain = Plan({}, kRoomy);
  MemoryRequest longer = kRoomy;
  longer.longest_row *= 2;
  EXPECT_EQ(Plan({}, longer).activation_bytes() - plain.fixed_bytes,
            2 * (plain.activation_bytes() - plain.fixed_bytes));
  const auto half = LoadModel({.dtype = at::kBFloat16, .token_by_token = true});
  EXPECT_EQ(2 * PlanMemory(*half, {}, kRoomy).bytes_per_token, plain.bytes_per_token);
  LocalTraining checkpointing;
  checkpointing.gradient_checkpointing = true;
  EXPECT_LT(Plan(checkpointing, kRoomy).bytes_per_token, plain.bytes_per_token);
}

TEST_F(MemoryPlanTest, ItsTextHoldsTheNumbersAUserWouldAskFor) {
  LocalTraining training;
  training.batch_size = 6;
  const std::string text = Plan(training, kRoomy).Text();
  for (const char* words :
       {"base 0 MB", "micro-batches of 6 rows of 64 tokens", "free 1048576 MB"}) {
    EXPECT_NE(text.find(words), std::string::npos) << text;
  }
  MemoryRequest unknown = kRoomy;
  unknown.available_bytes = 0;
  EXPECT_EQ(Plan(training, unknown).Text().find("free"), std::string::npos);
}

TEST_F(MemoryPlanTest, ThisMachineSaysHowMuchIsFree) {
  const int64_t free = AvailableMemory(at::Device(at::kCPU));
  EXPECT_GT(free, int64_t{1} << 20);
  EXPECT_LT(free, int64_t{1} << 50);
}

TEST(ControlGroupTest, TheTightestOfTheGroupsAboveTheProcessCounts) {
  const testing::TempFolder folder;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder.path() / name).parent_path());
    folder.Write(name, text);
  };
  write("own", "0::/system.slice/weft.service\n");
  EXPECT_EQ(ControlGroupLeft(folder.path() / "groups", folder.path() / "own"), std::nullopt);
  write("groups/system.slice/weft.service/memory.max", "1000\n");
  write("groups/system.slice/weft.service/memory.current", "300\n");
  EXPECT_EQ(ControlGroupLeft(folder.path() / "groups", folder.path() / "own"), 700);
  write("groups/system.slice/memory.max", "max\n");
  write("groups/system.slice/memory.current", "900\n");
  write("groups/memory.max", "1000\n");
  write("groups/memory.current", "950\n");
  EXPECT_EQ(ControlGroupLeft(folder.path() / "groups", folder.path() / "own"), 50);
  write("own", "0::/\n");
  EXPECT_EQ(ControlGroupLeft(folder.path() / "groups", folder.path() / "own"), 50);
}

}  // namespace
}  // namespace weft
