#include "common/adapters/msplora.h"

#include <cmath>

#include <gtest/gtest.h>

#include "common/adapters/msplora_stages.h"

namespace weft {
namespace {

// Twelve layers of two module types, query 8×8 and value 6×8 (out×in), in the model's order.
std::vector<LinearSite> Sites(int64_t depth) {
  std::vector<LinearSite> sites;
  for (int64_t l = 0; l < depth; ++l) {
    sites.push_back({Str("encoder.layer.", l, ".query"), 8, 8});
    sites.push_back({Str("encoder.layer.", l, ".value"), 8, 6});
  }
  return sites;
}

AdapterSpec Spec(std::vector<std::pair<std::string, std::string>> options = {}) {
  AdapterSpec spec;
  spec.method = "msplora";
  spec.rank = 4;
  spec.alpha = 16;
  spec.target_modules = {"query", "value"};
  spec.options = std::move(options);
  return spec;
}

std::string Refusal(const AdapterSpec& spec, std::span<const LinearSite> sites) {
  const Result<std::vector<SiteLayout>> layout = MspLoraAdapter()->Layout(spec, sites);
  EXPECT_EQ(layout.status().code(), Code::kInvalidArgument);
  return std::string(layout.status().message());
}

TEST(MspLoraTest, TheTypeIsThePathWithoutItsLayersNumber) {
  EXPECT_EQ(LayerPlaceOf("model.layers.13.self_attn.q_proj").type,
            "model.layers.*.self_attn.q_proj");
  EXPECT_EQ(LayerPlaceOf("model.layers.13.self_attn.q_proj").layer, 13);
  // The first number is the layer's; an expert's stays part of the type.
  EXPECT_EQ(LayerPlaceOf("layers.2.experts.7.up").type, "layers.*.experts.7.up");
  EXPECT_EQ(LayerPlaceOf("layers.2.experts.7.up").layer, 2);
  EXPECT_EQ(LayerPlaceOf("classifier.dense").type, "classifier.dense");
  EXPECT_EQ(LayerPlaceOf("classifier.dense").layer, 0);
  EXPECT_EQ(LayerPlaceOf("layers.123456789012345.q").type, "layers.123456789012345.q");
}

TEST(MspLoraTest, GroupsAreTheIntervalsOfThePaper) {
  for (const int64_t depth : {1, 2, 7, 12, 32}) {
    for (const int64_t groups : {1, 2, 3, 5, 40}) {
      for (int64_t l = 0; l < depth; ++l) {
        const int64_t j = MidGroup(groups, l, depth);
        EXPECT_LE(j * depth, l * groups) << l << " of " << depth;
        EXPECT_GT((j + 1) * depth, l * groups) << l << " of " << depth;
      }
    }
  }
}

TEST(MspLoraTest, TiersAreNamedFromCoarseToFine) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(TierNames(1), Names({"global"}));
  EXPECT_EQ(TierNames(2), Names({"global", "layer"}));
  EXPECT_EQ(TierNames(3), Names({"global", "mid", "layer"}));
  EXPECT_EQ(TierNames(5), Names({"global", "mid", "mid2", "mid3", "layer"}));
}

TEST(MspLoraTest, RanksFallByHalvesUnlessTheyAreGiven) {
  using Ranks = std::vector<int64_t>;
  const LinearSite site{"layers.0.q", 64, 32};
  AdapterSpec spec = Spec();
  spec.rank = 8;
  EXPECT_EQ(*TierRanks(spec, site), Ranks({8, 4, 2}));
  spec.rank = 2;
  EXPECT_EQ(*TierRanks(spec, site), Ranks({2, 1, 1}));  // never without a tier
  spec.rank = 64;
  EXPECT_EQ(*TierRanks(spec, site), Ranks({32, 32, 16}));  // capped by the layer's sides
  EXPECT_EQ(*TierRanks(Spec({{"msplora.tiers", "4"}}), site), Ranks({4, 2, 1, 1}));
  EXPECT_EQ(*TierRanks(Spec({{"msplora.ranks", "7,0,3"}}), site), Ranks({7, 0, 3}));
  EXPECT_EQ(*TierRanks(Spec({{"msplora.ranks", "7,5"}}), site), Ranks({7, 5}));
  EXPECT_EQ(*TierRanks(Spec({{"msplora.part", "shared"}}), site), Ranks({4, 2, 0}));
  EXPECT_EQ(*TierRanks(Spec({{"msplora.part", "own"}}), site), Ranks({0, 0, 1}));
}

TEST(MspLoraTest, LayersShareWhatTheirTierSays) {
  const std::vector<LinearSite> sites = Sites(8);
  const AdapterState state = *MspLoraAdapter()->Init(Spec(), sites, 3);
  const auto same = [&](size_t a, size_t b, const char* tensor) {
    return state.sites[a].Get(tensor).is_same(state.sites[b].Get(tensor));
  };
  for (size_t l = 0; l < 8; ++l) {
    const size_t first_of_group = l < 3 ? 0 : l < 6 ? 3 : 6;  // ⌊3l/8⌋
    for (const size_t type : {0u, 1u}) {
      for (const char* side : {"A", "B"}) {
        EXPECT_TRUE(same(2 * l + type, type, Str("global.", side).c_str())) << l;
        EXPECT_TRUE(same(2 * l + type, 2 * first_of_group + type, Str("mid.", side).c_str())) << l;
      }
    }
    EXPECT_FALSE(same(2 * l, 1, "global.A"));  // query never shares with value
    EXPECT_EQ(same(2 * l, 0, "layer.A"), l == 0);
  }
  EXPECT_FALSE(same(4, 6, "mid.A"));
  // [r·(in+out)] of one global pair, three mid-level ones and eight of the layers, of each type.
  EXPECT_EQ(state.NumParameters(), (16 + 14) * (4 + 3 * 2 + 8 * 1));
}

// RoBERTa-base, query and value, r = 8: the count of methods.md, 2d.
TEST(MspLoraTest, SharingLeavesTheParametersOfThePaper) {
  std::vector<LinearSite> sites;
  for (int64_t l = 0; l < 12; ++l) {
    sites.push_back({Str("layer.", l, ".query"), 768, 768});
    sites.push_back({Str("layer.", l, ".value"), 768, 768});
  }
  AdapterSpec spec = Spec();
  spec.rank = 8;
  EXPECT_EQ(MspLoraAdapter()->Init(spec, sites, 1)->NumParameters(), 135168);
}

TEST(MspLoraTest, EveryTierHasItsOwnScaling) {
  const std::vector<LinearSite> sites = {{"layers.0.q", 8, 8}};
  AdapterState state = *MspLoraAdapter()->Init(Spec(), sites, 3);
  for (const char* tier : {"global", "mid", "layer"}) {
    state.sites[0].Get(Str(tier, ".B")).fill_(1);
  }
  const LowRank factors = MspLoraAdapter()->Effective(state, 0);
  EXPECT_EQ(factors.A_RI.size(0), 4 + 2 + 1);
  EXPECT_EQ(factors.B_OR[0][0].item<float>(), 4.f);   // 16/4
  EXPECT_EQ(factors.B_OR[0][4].item<float>(), 8.f);   // 16/2
  EXPECT_EQ(factors.B_OR[0][6].item<float>(), 16.f);  // 16/1
  EXPECT_TRUE(at::equal(factors.A_RI.narrow(0, 4, 2), state.sites[0].Get("mid.A")));
  state.spec.rslora = true;
  EXPECT_EQ(MspLoraAdapter()->Effective(state, 0).B_OR[0][0].item<float>(), 8.f);  // 16/√4
}

TEST(MspLoraTest, ASiteWithoutALayersNumberSharesNothing) {
  std::vector<LinearSite> sites = Sites(3);
  sites.push_back({"pooler.query", 8, 8});
  const std::vector<SiteLayout> layout = *MspLoraAdapter()->Layout(Spec(), sites);
  ASSERT_EQ(layout.back().size(), 6u);
  for (const TensorLayout& tensor : layout.back()) EXPECT_EQ(tensor.owner, sites.size() - 1);
}

TEST(MspLoraTest, TiersThatDoNotMatchAreRefusedByName) {
  std::vector<LinearSite> sites = Sites(3);
  sites[4].in = 10;  // encoder.layer.2.query
  const std::string shape = Refusal(Spec(), sites);
  EXPECT_NE(shape.find("encoder.layer.2.query"), std::string::npos) << shape;
  EXPECT_NE(shape.find("8×10"), std::string::npos) << shape;
  EXPECT_NE(shape.find("\"global\""), std::string::npos) << shape;

  AdapterSpec ranks = Spec();
  ranks.rank_pattern = {{"1.value", 2}};
  const std::string rank = Refusal(ranks, Sites(3));
  EXPECT_NE(rank.find("encoder.layer.1.value has rank 2"), std::string::npos) << rank;

  AdapterSpec alphas = Spec();
  alphas.alpha_pattern = {{"2.query", 5}};
  const std::string alpha = Refusal(alphas, Sites(3));
  EXPECT_NE(alpha.find("encoder.layer.2.query has alpha 5"), std::string::npos) << alpha;

  // Where no tier is shared between them, they may differ.
  AdapterSpec apart = Spec({{"msplora.ranks", "0,2,1"}});
  apart.alpha_pattern = {{"2.query", 5}};
  EXPECT_TRUE(MspLoraAdapter()->Layout(apart, Sites(3)).ok());
}

TEST(MspLoraTest, ImpossibleOptionsAreRefused) {
  using Options = std::vector<std::pair<std::string, std::string>>;
  for (const Options& options :
       std::vector<Options>{{{"msplora.tiers", "0"}},
                            {{"msplora.tiers", "17"}},
                            {{"msplora.groups", "0"}},
                            {{"msplora.groups", "three"}},
                            {{"msplora.staged", "yes"}},
                            {{"msplora.part", "half"}},
                            {{"msplora.ranks", ""}},
                            {{"msplora.ranks", "8,,2"}},
                            {{"msplora.ranks", "8,-1,2"}},
                            {{"msplora.ranks", "8,4,2,"}},
                            {{"msplora.ranks", "99999999999"}},
                            {{"msplora.ranks", "0,0"}},
                            {{"msplora.ranks", "8,4"}, {"msplora.tiers", "3"}},
                            {{"msplora.tiers", "1"}, {"msplora.part", "own"}},
                            {{"msplora.group", "3"}}}) {
    const Status status = MspLoraAdapter()->CheckSpec(Spec(options));
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << options[0].first << options[0].second;
    EXPECT_NE(status.message().find("msplora."), std::string::npos) << status;
  }
  EXPECT_TRUE(MspLoraAdapter()->CheckSpec(Spec({{"msplora.staged", "true"}})).ok());
}

TEST(MspLoraTest, MissingTiersHaveNoTensors) {
  const AdapterSpec spec = Spec({{"msplora.ranks", "4,0,1"}});
  const AdapterState state = *MspLoraAdapter()->Init(spec, Sites(3), 3);
  ASSERT_EQ(state.sites[0].tensors.size(), 4u);
  EXPECT_EQ(state.sites[0].tensors[2].name, "layer.A");
  using Names = std::vector<std::string>;
  EXPECT_EQ(MspLoraAdapter()->Trainable(spec),
            Names({"global.A", "global.B", "layer.A", "layer.B"}));
  EXPECT_EQ(MspLoraAdapter()->FactorRank(spec, Sites(1)[0]), 5);
}

TEST(MspLoraTest, AStageIsAnEqualShareOfTheRun) {
  std::vector<int64_t> steps(3, 0);
  for (int64_t s = 0; s < 10; ++s) ++steps[static_cast<size_t>(StageOf(3, s, 10))];
  EXPECT_EQ(steps, std::vector<int64_t>({4, 3, 3}));
  EXPECT_EQ(StageOf(3, 10, 10), 2);  // a step beyond the plan is one of the last stage
  EXPECT_EQ(StageOf(3, 0, 0), 0);
}

// AdamW as client/optimizer.cc runs it, on one tensor.
struct Adam {
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
  int64_t step = 0;

  void Step(at::Tensor value, const at::Tensor& gradient) {
    if (step == 0) {
      exp_avg = at::zeros_like(gradient);
      exp_avg_sq = at::zeros_like(gradient);
    }
    ++step;
    exp_avg.mul_(0.9).add_(gradient, 0.1);
    exp_avg_sq.mul_(0.999).addcmul_(gradient, gradient, 0.001);
    const double first = 1 - std::pow(0.9, static_cast<double>(step));
    const double second = 1 - std::pow(0.999, static_cast<double>(step));
    value.sub_(0.01 * (exp_avg / first) / ((exp_avg_sq / second).sqrt() + 1e-12));
  }
};

// Each tier stands still outside its third of the steps, and inside moves as if its optimiser had
// begun there.
TEST(MspLoraTest, StagedTiersTrainOneAfterTheOther) {
  const at::NoGradGuard no_grad;
  const std::vector<LinearSite> sites = {{"layers.0.q", 8, 8}, {"layers.1.q", 8, 8}};
  AdapterState state = CloneTo(
      *MspLoraAdapter()->Init(Spec({{"msplora.staged", "true"}}), sites, 3), at::kCPU, at::kDouble);
  const StepSchedule schedule{.steps_done = 0, .total_steps = 12};
  const std::unique_ptr<StepRule> rule = MspLoraAdapter()->NewStepRule(state, schedule);
  ASSERT_NE(rule, nullptr);
  const std::vector<std::string> names = {"global.B", "mid.B", "layer.B"};
  std::vector<Adam> optimisers(3);
  std::vector<Adam> alone(3);
  std::vector<at::Tensor> wanted;
  for (const std::string& name : names) wanted.push_back(state.sites[1].Get(name).clone());
  at::manual_seed(8);
  for (int64_t s = 0; s < 12; ++s) {
    const at::Tensor gradient = at::randn({8}, at::kDouble);
    for (SiteState& site : state.sites) {
      for (NamedTensor& tensor : site.tensors) {
        tensor.value.mutable_grad() = at::ones_like(tensor.value) * gradient[s % 8];
      }
    }
    rule->BeforeStep(state);
    for (size_t t = 0; t < 3; ++t) {
      at::Tensor& value = state.sites[1].Get(names[t]);
      optimisers[t].Step(value, value.grad());
    }
    rule->AfterStep(state);
    const auto stage = static_cast<size_t>(s / 4);
    alone[stage].Step(wanted[stage], at::ones_like(wanted[stage]) * gradient[s % 8]);
    for (size_t t = 0; t < 3; ++t) {
      EXPECT_TRUE(at::allclose(state.sites[1].Get(names[t]), wanted[t], 1e-9, 1e-12))
          << "step " << s << " " << names[t];
    }
  }
  EXPECT_TRUE(state.sites[0].Get("global.B").is_same(state.sites[1].Get("global.B")));
}

TEST(MspLoraTest, AnOptimiserThatBeganWithTheStageNeedsNoCorrection) {
  const StepSchedule schedule;
  EXPECT_EQ(BiasExcess(schedule, 7, 7), 1);
  // (1 − 0.9)/√(1 − 0.999) = √10 once the count is large.
  EXPECT_NEAR(BiasExcess(schedule, 1, 1'000'000), std::sqrt(10.0), 1e-9);
}

TEST(MspLoraTest, WithoutStagesThereIsNoStepRule) {
  const AdapterState state = *MspLoraAdapter()->Init(Spec(), Sites(2), 3);
  EXPECT_EQ(MspLoraAdapter()->NewStepRule(state, {}), nullptr);
}

}  // namespace
}  // namespace weft
