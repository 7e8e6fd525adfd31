// The rank a site offers when it is left to Weft.

#include "client/rank_plan.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

constexpr uint64_t kGigabyte = uint64_t{1} << 30;

const std::vector<LinearSite> kSites = {{"q_proj", 4096, 4096}, {"up_proj", 4096, 11008}};

TEST(RankPlanTest, WithoutBoundsItIsTheLargestThatUsuallyHelps) {
  const RankPlan plan = PlanRank({.sites = kSites});
  EXPECT_EQ(plan.rank, kAutoRankMax);
  EXPECT_NE(plan.text.find("not known"), std::string::npos);
}

TEST(RankPlanTest, LittleMemoryLowersItAndItsNumbersAreInTheText) {
  RankPlanInput input{.sites = kSites};
  input.base_bytes = kGigabyte / 4;
  input.free_bytes = kGigabyte;
  const RankPlan roomy = PlanRank(input);
  const int64_t wide = roomy.rank;
  // What is left beside base and activations is worth eight ranks.
  input.free_bytes = input.base_bytes + roomy.activation_bytes + 8 * roomy.bytes_per_rank;
  const RankPlan tight = PlanRank(input);
  EXPECT_LT(tight.rank, wide);
  EXPECT_LE(static_cast<uint64_t>(tight.rank) * tight.bytes_per_rank + input.base_bytes +
                tight.activation_bytes,
            input.free_bytes);
  EXPECT_NE(tight.text.find("MB free"), std::string::npos) << tight.text;
}

TEST(RankPlanTest, AMachineTooSmallForAnythingStillGetsRankOne) {
  EXPECT_EQ(PlanRank({.sites = kSites, .base_bytes = kGigabyte, .free_bytes = kGigabyte / 2}).rank,
            1);
}

TEST(RankPlanTest, ASlowLinkLowersItSoThatAnUpdateArrivesInTime) {
  const RankPlan plan = PlanRank({.sites = kSites, .link_mbps = 0.1, .upload_s = 60});
  EXPECT_LT(plan.rank, kAutoRankMax);
  EXPECT_LE(static_cast<double>(plan.upload_bytes), 0.1e6 / 8 * 60);
}

TEST(RankPlanTest, FactorsOfSmallLayersAreCountedAtTheRankTheyGet) {
  const std::vector<LinearSite> small = {{"tiny", 4, 100}};
  EXPECT_EQ(FactorBytes(small, 8), 4U * 104 * 4);
  EXPECT_EQ(FactorBytes(small, 2), 2U * 104 * 4);
}

TEST(RankPlanTest, AServerOnThisMachineHasNoLinkToMeasure) {
  EXPECT_EQ(LinkSpeedMbps("tcp://127.0.0.1:7711"), 0);
  EXPECT_GE(LinkSpeedMbps("tcp://aggregator.example:7711"), 0);
}

}  // namespace
}  // namespace weft
