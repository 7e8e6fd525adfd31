// Inverse frequencies against those transformers 5.23 computes (ROPE_INIT_FUNCTIONS, float32).

#include "common/formats/rope.h"

#include <vector>

#include <gtest/gtest.h>

namespace weft {
namespace {

// Both sides round in float32, pow by different libraries: a few units in the last place.
void ExpectFrequencies(const RopeConfig& rope, int64_t length, const std::vector<double>& wanted) {
  const std::vector<float> got = RopeInverseFrequencies(rope, 16, 512, length);
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i] / wanted[i], 1, 5e-7) << RopeTypeName(rope.type) << " pair " << i;
  }
}

TEST(RopeTest, Default) {
  ExpectFrequencies({}, 512,
                    {1.0, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786,
                     0.00100000005, 0.000316227786});
}

TEST(RopeTest, LinearDividesEveryFrequency) {
  ExpectFrequencies({.type = RopeType::kLinear, .factor = 2}, 512,
                    {0.5, 0.158113882, 0.0500000007, 0.0158113893, 0.00499999989, 0.00158113893,
                     0.000500000024, 0.000158113893});
}

TEST(RopeTest, DynamicStretchesOnlyBeyondTheContext) {
  const RopeConfig rope{.type = RopeType::kDynamic, .factor = 2};
  for (const int64_t length : {1, 512}) {
    ExpectFrequencies(rope, length,
                      {1.0, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786,
                       0.00100000005, 0.000316227786});
  }
  ExpectFrequencies(rope, 2048,
                    {1.0, 0.239481375, 0.057351321, 0.0137345716, 0.00328917382, 0.00078769587,
                     0.000188638471, 4.51753949e-05});
}

TEST(RopeTest, Llama3KeepsHighFrequenciesAndDividesLowOnes) {
  ExpectFrequencies({.type = RopeType::kLlama3,
                     .theta = 500000,
                     .factor = 4,
                     .low_freq_factor = 1,
                     .high_freq_factor = 4,
                     .original_positions = 64},
                    512,
                    {1.0, 0.0957629755, 0.00940150768, 0.00182316627, 0.000353553361,
                     6.85620471e-05, 1.32957393e-05, 2.57834631e-06});
}

TEST(RopeTest, YarnBlendsByDimension) {
  ExpectFrequencies({.type = RopeType::kYarn, .factor = 4, .original_positions = 128}, 512,
                    {1.0, 0.237170815, 0.049999997, 0.00790569466, 0.00249999994, 0.000790569466,
                     0.000250000012, 7.90569466e-05});
  ExpectFrequencies({.type = RopeType::kYarn,
                     .theta = 1000000,
                     .factor = 8,
                     .original_positions = 64,
                     .beta_fast = 16,
                     .truncate = false},
                    512,
                    {1.0, 0.0620545484, 0.00395284733, 0.000702926656, 0.000125000006,
                     2.22284925e-05, 3.95284678e-06, 7.02926684e-07});
}

}  // namespace
}  // namespace weft
