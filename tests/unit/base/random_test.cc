#include "common/base/random.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

namespace weft {
namespace {

// Known answers of Random123's kat_vectors for philox4x32-10.
TEST(RandomTest, PhiloxMatchesThePublishedKnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(Philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(RandomTest, LabelsAreSeparated) {
  EXPECT_NE(RandomStream::Derive(1, {"ab", "c"}).key(), RandomStream::Derive(1, {"a", "bc"}).key());
  EXPECT_EQ(RandomStream::Derive(1, {"ab", "c"}).key(), RandomStream::Derive(1, {"ab", "c"}).key());
}

TEST(RandomTest, PermutationHoldsEachIndexOnce) {
  auto order = RandomStream(7).Permutation(1000);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], i);
}

TEST(RandomTest, MomentsOfNormalAndGammaAreRight) {
  RandomStream stream(3);
  constexpr int kDraws = 200000;
  double sum = 0, square = 0, gamma = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.Normal();
    sum += x;
    square += x * x;
    gamma += stream.Gamma(0.3);
  }
  // Standard errors: 0.0022 for the mean, 0.0032 for the variance, 0.0012 for the gamma mean; five
  // of each.
  EXPECT_NEAR(sum / kDraws, 0, 0.012);
  EXPECT_NEAR(square / kDraws, 1, 0.016);
  EXPECT_NEAR(gamma / kDraws, 0.3, 0.006);
}

}  // namespace
}  // namespace weft
