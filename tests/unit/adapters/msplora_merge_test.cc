#include "common/adapters/msplora_merge.h"

#include <gtest/gtest.h>

#include "common/adapters/msplora.h"

namespace weft {
namespace {

using Options = std::vector<std::pair<std::string, std::string>>;

std::vector<LinearSite> Sites() {
  std::vector<LinearSite> sites;
  for (int64_t l = 0; l < 6; ++l) {
    sites.push_back({Str("layers.", l, ".q"), 9, 7});
    sites.push_back({Str("layers.", l, ".v"), 9, 5});
  }
  return sites;
}

AdapterSpec Spec(Options options, double alpha = 16) {
  AdapterSpec spec;
  spec.method = "msplora";
  spec.rank = 4;
  spec.alpha = alpha;
  spec.target_modules = {"q", "v"};
  spec.options = std::move(options);
  return spec;
}

AdapterState Trained(const AdapterSpec& spec, uint64_t seed) {
  AdapterState state = *MspLoraAdapter()->Init(spec, Sites(), seed);
  at::manual_seed(seed);
  MapTensors(state.sites, [](const NamedTensor& tensor) { return at::randn_like(tensor.value); });
  return state;
}

at::Tensor Delta(const LowRank& factors) {
  return at::matmul(factors.B_OR.to(at::kDouble), factors.A_RI.to(at::kDouble));
}

// Σ p·ΔW of one site, by the clients' own factors in float64.
at::Tensor Mean(std::span<const AdapterUpdate> updates, size_t site) {
  at::Tensor mean;
  for (const AdapterUpdate& update : updates) {
    const AdapterState state = CloneTo(*update.state, at::kCPU, at::kDouble);
    const at::Tensor own = Delta(MspLoraAdapter()->Effective(state, site)) * update.weight;
    mean = mean.defined() ? mean + own : own;
  }
  return mean;
}

void ExpectMean(std::span<const AdapterUpdate> updates, const MspMerge& merge) {
  const LowRankAdapter lowered = LowerMsp(merge);
  for (size_t i = 0; i < lowered.size(); ++i) {
    EXPECT_TRUE(at::allclose(Delta(lowered[i].factors), Mean(updates, i), 1e-11, 1e-12)) << i;
  }
}

std::vector<std::vector<size_t>> CellsOf(const MspMerge& merge, const std::string& tier) {
  std::vector<std::vector<size_t>> cells;
  for (const MspCell& cell : merge.cells) {
    if (cell.tier == tier) cells.push_back(cell.sites);
  }
  return cells;
}

TEST(MspMergeTest, RanksAlphasGroupingsAndMissingTiersMergeExactly) {
  const AdapterState a = Trained(Spec({{"msplora.groups", "3"}}), 1);
  const AdapterState b = Trained(Spec({{"msplora.ranks", "3,2,0"}, {"msplora.groups", "2"}}, 5), 2);
  const AdapterState c = Trained(Spec({{"msplora.ranks", "0,1,2"}, {"msplora.groups", "1"}}), 3);
  const std::vector<AdapterUpdate> updates = {{&a, 0.5}, {&b, 0.3}, {&c, 0.2}};
  const Result<MspMerge> merge = MergeMsp(updates);
  ASSERT_TRUE(merge.ok()) << merge.status();
  ExpectMean(updates, *merge);
  using Cells = std::vector<std::vector<size_t>>;
  EXPECT_EQ(CellsOf(*merge, "global"), Cells({{0, 2, 4, 6, 8, 10}, {1, 3, 5, 7, 9, 11}}));
  // Thirds {01}{23}{45} and halves {012}{345} refine to {01}{2}{3}{45}, of q and of v.
  EXPECT_EQ(CellsOf(*merge, "mid"), Cells({{0, 2}, {1, 3}, {4}, {5}, {6}, {7}, {8, 10}, {9, 11}}));
  EXPECT_EQ(CellsOf(*merge, "layer").size(), 12u);
  for (const MspCell& cell : merge->cells) {
    const int64_t rank = cell.tier == "global" ? 4 + 3 : cell.tier == "mid" ? 2 + 2 + 1 : 1 + 2;
    EXPECT_EQ(cell.factors.A_RI.size(0), rank) << cell.tier;
  }
}

TEST(MspMergeTest, WhereOneSideIsFrozenTheOtherIsAveraged) {
  const AdapterState a = Trained(Spec({}), 1);
  AdapterState b = Trained(Spec({}, 4), 2);
  AdapterState c = Trained(Spec({}), 3);
  for (size_t i = 0; i < a.sites.size(); ++i) {
    for (const char* name : {"global.A", "mid.B"}) {
      b.sites[i].Get(name) = a.sites[i].Get(name);
      c.sites[i].Get(name) = a.sites[i].Get(name);
    }
  }
  const std::vector<AdapterUpdate> updates = {{&a, 0.2}, {&b, 0.5}, {&c, 0.3}};
  const MspMerge merge = *MergeMsp(updates);
  ExpectMean(updates, merge);
  for (const MspCell& cell : merge.cells) {
    const int64_t own = cell.tier == "global" ? 4 : cell.tier == "mid" ? 2 : 1;
    const bool averaged = cell.tier != "layer";
    EXPECT_EQ(cell.factors.A_RI.size(0), averaged ? own : 3 * own) << cell.tier;
  }
}

TEST(MspMergeTest, RecompressionKeepsTheSharingAndIsTheBestOfItsRank) {
  const AdapterState a = Trained(Spec({}), 1);
  const AdapterState b = Trained(Spec({}), 2);
  const std::vector<AdapterUpdate> updates = {{&a, 0.5}, {&b, 0.5}};
  const MspMerge merge = *MergeMsp(updates);
  ExpectMean(updates, RecompressMsp(merge, 9));  // no loss
  const MspMerge small = RecompressMsp(merge, 3);
  ASSERT_EQ(small.cells.size(), merge.cells.size());
  for (size_t c = 0; c < merge.cells.size(); ++c) {
    EXPECT_EQ(small.cells[c].sites, merge.cells[c].sites);
    const at::Tensor whole = Delta(merge.cells[c].factors);
    const at::Tensor spectrum = at::linalg_svdvals(whole);
    const double cut = spectrum.narrow(0, 3, spectrum.size(0) - 3).norm().item<double>();
    EXPECT_NEAR((Delta(small.cells[c].factors) - whole).norm().item<double>(), cut, 1e-10) << c;
  }
}

TEST(MspMergeTest, AMergeOfOneGroupingIsAnAdapterAgain) {
  const AdapterState a = Trained(Spec({}), 1);
  const AdapterState b = Trained(Spec({}), 2);
  const std::vector<AdapterUpdate> updates = {{&a, 0.5}, {&b, 0.5}};
  const MspMerge merge = *MergeMsp(updates);
  const AdapterSpec wide =
      Spec({{"msplora.ranks", "7,4,3"}}, 3);  // the last one beyond the merge's
  const Result<AdapterState> state = MspStateOf(wide, merge, 5);
  ASSERT_TRUE(state.ok()) << state.status();
  const AdapterState fresh = *MspLoraAdapter()->Init(wide, Sites(), 5);
  EXPECT_TRUE(SameLayout(*state, fresh));
  EXPECT_EQ(state->NumParameters(), fresh.NumParameters());  // shared as before
  const LowRankAdapter lowered = *Lower(*state);
  for (size_t i = 0; i < lowered.size(); ++i) {
    const at::Tensor wanted = Mean(updates, i);
    const double distance = (Delta(lowered[i].factors) - wanted).norm().item<double>();
    // Of q's global rank 8 only 7, and of v's 5, can differ from zero.
    EXPECT_LT(distance, 1e-5 * wanted.norm().item<double>()) << i;
  }
  // A slot that the merge does not fill is a fresh one: it can learn.
  EXPECT_EQ(state->sites[0].Get("layer.B").narrow(1, 2, 1).abs().max().item<float>(), 0);
  EXPECT_TRUE(at::equal(state->sites[0].Get("layer.A")[2], fresh.sites[0].Get("layer.A")[2]));
}

TEST(MspMergeTest, ASpecThatCannotSayTheMergeIsRefused) {
  const AdapterState thirds = Trained(Spec({{"msplora.groups", "3"}}), 1);
  const AdapterState halves = Trained(Spec({{"msplora.groups", "2"}}), 2);
  const std::vector<AdapterUpdate> updates = {{&thirds, 0.5}, {&halves, 0.5}};
  const MspMerge merge = *MergeMsp(updates);
  const Status groups = MspStateOf(Spec({{"msplora.groups", "3"}}), merge, 5).status();
  EXPECT_EQ(groups.code(), Code::kFailedPrecondition);
  EXPECT_NE(groups.message().find("layers.3.q"), std::string::npos) << groups;
  EXPECT_TRUE(MspStateOf(Spec({{"msplora.groups", "6"}}), merge, 5).ok());
  const Status tier = MspStateOf(Spec({{"msplora.ranks", "4,0,2"}}), merge, 5).status();
  EXPECT_EQ(tier.code(), Code::kFailedPrecondition);
  EXPECT_NE(tier.message().find("mid"), std::string::npos) << tier;
}

TEST(MspMergeTest, ClientsThatDoNotFitAreNamed) {
  const AdapterState a = Trained(Spec({}), 1);
  AdapterState other = a;
  other.sites[3].site.in = 10;
  const Status site = MergeMsp(std::vector<AdapterUpdate>{{&a, 0.5}, {&other, 0.5}}).status();
  EXPECT_EQ(site.code(), Code::kInvalidArgument);
  EXPECT_NE(site.message().find("client 1: site 3"), std::string::npos) << site;
  AdapterState lora = a;
  lora.spec.method = "lora";
  EXPECT_FALSE(MergeMsp(std::vector<AdapterUpdate>{{&a, 0.5}, {&lora, 0.5}}).ok());
  AdapterState shallow = a;
  shallow.sites.pop_back();
  EXPECT_FALSE(MergeMsp(std::vector<AdapterUpdate>{{&a, 0.5}, {&shallow, 0.5}}).ok());
  EXPECT_FALSE(MergeMsp({}).ok());
}

TEST(MspMergeTest, APersonalisedAdapterSplitsAndJoins) {
  const AdapterState state = Trained(Spec({}), 1);
  const MspParts parts = *SplitMsp(state);
  for (const AdapterState* part : {&parts.shared, &parts.own}) {
    EXPECT_TRUE(SameLayout(*part, *MspLoraAdapter()->Init(part->spec, Sites(), 1)));
  }
  EXPECT_EQ(parts.shared.NumParameters() + parts.own.NumParameters(), state.NumParameters());
  EXPECT_EQ(parts.own.sites[0].tensors[0].name, "layer.A");
  for (size_t i = 0; i < state.sites.size(); ++i) {
    const at::Tensor sum = Delta(MspLoraAdapter()->Effective(parts.shared, i)) +
                           Delta(MspLoraAdapter()->Effective(parts.own, i));
    EXPECT_TRUE(at::allclose(sum, Delta(MspLoraAdapter()->Effective(state, i)), 1e-5, 1e-5)) << i;
  }
  const AdapterState joined = *JoinMsp(parts);
  EXPECT_TRUE(SameLayout(joined, state));
  EXPECT_EQ(joined.spec, state.spec);
  EXPECT_TRUE(joined.sites[3].Get("mid.A").is_same(state.sites[1].Get("mid.A")));
}

TEST(MspMergeTest, PartsOfDifferentAdaptersDoNotJoin) {
  const MspParts parts = *SplitMsp(Trained(Spec({}), 1));
  EXPECT_FALSE(JoinMsp({parts.own, parts.shared}).ok());
  EXPECT_FALSE(SplitMsp(parts.shared).ok());
  EXPECT_FALSE(JoinMsp({parts.shared, SplitMsp(Trained(Spec({}, 4), 1))->own}).ok());
  const AdapterState no_own = Trained(Spec({{"msplora.ranks", "4,2,0"}}), 1);
  EXPECT_EQ(SplitMsp(no_own).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft
