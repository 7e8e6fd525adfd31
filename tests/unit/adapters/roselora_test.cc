#include "common/adapters/roselora.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

const std::vector<LinearSite> kSites = {{"a.q_proj", 24, 20}, {"a.v_proj", 24, 12}};

AdapterSpec Spec(std::vector<std::pair<std::string, std::string>> options) {
  AdapterSpec spec;
  spec.method = "roselora";
  spec.rank = 3;
  spec.alpha = 6;
  spec.target_modules = {"q_proj", "v_proj"};
  spec.options = std::move(options);
  return spec;
}

// A state whose tensors have gradients, as training leaves them.
AdapterState State(const AdapterSpec& spec, std::span<const LinearSite> sites = kSites) {
  AdapterState state = *RoseLoraAdapter()->Init(spec, sites, 3);
  at::manual_seed(4);
  for (SiteState& site : state.sites) {
    site.Get("B").normal_(0, 0.1);
    for (const char* name : {"A", "B"}) {
      site.Get(name).requires_grad_(true);
      site.Get(name).mutable_grad() = at::zeros_like(site.Get(name));
    }
  }
  return state;
}

// One optimiser step whose gradients and movement come from `seed` alone.
void Step(StepRule& rule, AdapterState& state, uint64_t seed) {
  const at::NoGradGuard no_grad;
  at::manual_seed(seed);
  for (SiteState& site : state.sites) {
    for (const char* name : {"A", "B"}) site.Get(name).mutable_grad().normal_();
  }
  rule.BeforeStep(state);
  for (SiteState& site : state.sites) {
    for (const char* name : {"A", "B"}) {
      site.Get(name).detach().sub_(site.Get(name).grad(), 0.01);
    }
  }
  rule.AfterStep(state);
}

std::unique_ptr<StepRule> Rule(const AdapterState& state, const StepSchedule& schedule) {
  return RoseLoraAdapter()->NewStepRule(state, schedule);
}

int64_t NonZero(const at::Tensor& tensor) { return tensor.count_nonzero().item<int64_t>(); }

void ExpectCounts(const AdapterState& state, int64_t row_of_A, double rate) {
  for (const SiteState& site : state.sites) {
    EXPECT_TRUE((site.Get("A").ne(0).sum(1) == row_of_A).all().item<bool>());
    const int64_t column = site.site.out - RoseOrder(site.site.out, rate) + 1;
    EXPECT_TRUE((site.Get("B").ne(0).sum(0) == column).all().item<bool>()) << site.site.path;
  }
}

TEST(RoseLoraTest, TheRateFallsCubicallyFromOneToTheKeptShare) {
  const RoseSchedule schedule{.keep = 0.05, .start = 3, .end = 20};
  EXPECT_EQ(RoseKeepRate(schedule, 0), 1);
  EXPECT_EQ(RoseKeepRate(schedule, 3), 1);  // pruning starts behind it
  EXPECT_NEAR(RoseKeepRate(schedule, 4), 0.05 + 0.95 * std::pow(16.0 / 17, 3), 1e-15);
  EXPECT_NEAR(RoseKeepRate(schedule, 19), 0.05 + 0.95 * std::pow(1.0 / 17, 3), 1e-15);
  EXPECT_EQ(RoseKeepRate(schedule, 20), 0.05);
  EXPECT_EQ(RoseKeepRate(schedule, 5000), 0.05);
  EXPECT_EQ(RoseKeepRate({.keep = 0.5, .start = 4, .end = 4}, 3), 1);
  EXPECT_EQ(RoseKeepRate({.keep = 0.5, .start = 4, .end = 4}, 4), 0.5);
  EXPECT_EQ(RoseKeepRate({.keep = 0.5, .start = 9, .end = 4}, 8), 1);
}

TEST(RoseLoraTest, TheOrderIsThatOfTheAuthorsCode) {
  EXPECT_EQ(RoseOrder(24, 0.05), 22);
  EXPECT_EQ(RoseOrder(4096, 0.05), 3891);  // 206 stay
  EXPECT_EQ(RoseOrder(24, 0.99), 0);       // no k-th smallest yet
  EXPECT_EQ(RoseOrder(24, 1), 0);
}

TEST(RoseLoraTest, EntriesBelowTheKthSmallestScoreOfTheirRowGoAndEqualOnesStay) {
  const at::Tensor score = at::tensor({0.3, 0.1, 0.4, 0.2, 0.0, 0.0, 0.0, 0.5}).view({2, 4});
  const at::Tensor threshold = RoseThreshold(score, 3, 1);
  EXPECT_TRUE(at::equal(threshold, at::tensor({0.3, 0.0}).view({2, 1})));
  EXPECT_TRUE(at::equal(RosePruned(score, threshold),
                        at::tensor({0, 1, 0, 1, 0, 0, 0, 0}).to(at::kBool).view({2, 4})));
  EXPECT_TRUE(at::equal(RosePrunedExactly(score, 0.5, 1),
                        at::tensor({0, 1, 0, 1, 0, 1, 1, 0}).to(at::kBool).view({2, 4})));
}

TEST(RoseLoraTest, RowsOfAAndColumnsOfBKeepTheirCountFromTheEndOfTheSchedule) {
  AdapterState state = State(Spec({{"roselora.start", "2"}, {"roselora.end", "6"}}));
  const std::unique_ptr<StepRule> rule = Rule(state, {.total_steps = 100});
  const int64_t all = NonZero(state.sites[0].Get("A"));
  for (uint64_t t = 0; t < 3; ++t) Step(*rule, state, t);
  EXPECT_EQ(NonZero(state.sites[0].Get("A")), all);  // steps 0 to 2 are dense
  Step(*rule, state, 3);
  const int64_t begun = NonZero(state.sites[0].Get("A"));
  EXPECT_LT(begun, all);
  for (uint64_t t = 4; t < 7; ++t) Step(*rule, state, t);
  ExpectCounts(state, 3, 0.05);  // 24 − 22 + 1
  EXPECT_LT(NonZero(state.sites[0].Get("A")), begun);
  // What survived has moved, and what went stays away although the optimiser moves it.
  const at::Tensor support = state.sites[0].Get("A").ne(0);
  for (uint64_t t = 7; t < 12; ++t) Step(*rule, state, t);
  EXPECT_TRUE(at::equal(state.sites[0].Get("A").ne(0), support));
}

TEST(RoseLoraTest, TheEntriesThatStayAreThoseOfTheLargestSmoothedSensitivity) {
  AdapterState state = State(Spec({{"roselora.start", "0"},
                                   {"roselora.end", "2"},
                                   {"roselora.keep", "0.25"},
                                   {"roselora.beta", "0.5"}}));
  const std::unique_ptr<StepRule> rule = Rule(state, {.total_steps = 100});
  at::Tensor smoothed;
  for (uint64_t t = 0; t < 3; ++t) {
    const at::Tensor before = state.sites[1].Get("B").detach().clone();
    Step(*rule, state, t);
    at::Tensor score = RoseSensitivity(before, state.sites[1].Get("B").grad());
    if (t == 0) {
      smoothed = score;  // with nothing to smooth
    } else {
      RoseSmooth(smoothed, score, 0.5);
    }
  }
  const at::Tensor gone = RosePruned(smoothed, RoseThreshold(smoothed, RoseOrder(12, 0.25), 0));
  EXPECT_TRUE(at::equal(state.sites[1].Get("B").eq(0), gone));
}

TEST(RoseLoraTest, ZeroScoresOfAFreshAdapterPruneNothing) {
  AdapterState state = State(Spec({{"roselora.start", "0"}, {"roselora.end", "1"}}));
  const at::NoGradGuard no_grad;
  for (SiteState& site : state.sites) site.Get("B").zero_();  // so A's gradient is zero as well
  const std::unique_ptr<StepRule> rule = Rule(state, {.steps_done = 5, .total_steps = 100});
  rule->BeforeStep(state);
  for (SiteState& site : state.sites) site.Get("B").add_(0.1);
  rule->AfterStep(state);
  EXPECT_EQ(NonZero(state.sites[0].Get("A")), 3 * 24);
  EXPECT_EQ(NonZero(state.sites[0].Get("B")), 20 * 3);
}

TEST(RoseLoraTest, SharesOfTheScheduleAreOfAllRoundsAndRoundsGoOnWhereTheyStopped) {
  const AdapterSpec spec = Spec({{"roselora.start", "0.2"}, {"roselora.end", "0.8"}});
  AdapterState whole = State(spec);
  AdapterState parts = State(spec);
  const std::unique_ptr<StepRule> once = Rule(whole, {.total_steps = 10});
  for (uint64_t t = 0; t < 10; ++t) Step(*once, whole, t);
  std::vector<NamedTensor> saved;
  for (int64_t round = 0; round < 5; ++round) {
    const std::unique_ptr<StepRule> rule =
        Rule(parts, {.steps_done = 2 * round, .total_steps = 10});
    if (round > 0) {
      ASSERT_TRUE(rule->Restore(saved).ok());
    }
    for (int64_t t = 0; t < 2; ++t) Step(*rule, parts, static_cast<uint64_t>(2 * round + t));
    saved = rule->Save();
  }
  ExpectCounts(whole, 3, 0.05);
  for (size_t i = 0; i < whole.sites.size(); ++i) {
    for (const char* name : {"A", "B"}) {
      EXPECT_TRUE(at::equal(whole.sites[i].Get(name), parts.sites[i].Get(name)));
    }
  }
  // Without the scores another support comes out: the test above means something.
  const std::unique_ptr<StepRule> forgetful = Rule(parts, {.total_steps = 10});
  EXPECT_TRUE(forgetful->Save().empty());
}

TEST(RoseLoraTest, ScoresOfAnotherAdapterOrOfNoUseAreRefused) {
  AdapterState state = State(Spec({}));
  const std::unique_ptr<StepRule> rule = Rule(state, {.total_steps = 10});
  Step(*rule, state, 1);
  const std::vector<NamedTensor> saved = rule->Save();
  ASSERT_EQ(saved.size(), 4u);
  const auto restore = [&](std::vector<NamedTensor> kept) {
    return Rule(state, {.total_steps = 10})->Restore(kept);
  };
  EXPECT_TRUE(restore(saved).ok());
  std::vector<NamedTensor> fewer(saved.begin(), saved.end() - 1);
  EXPECT_NE(restore(fewer).message().find("a.v_proj.B is missing"), std::string::npos);
  std::vector<NamedTensor> more = saved;
  more.push_back({"b.q_proj.A", at::zeros({3, 24})});
  EXPECT_NE(restore(more).message().find("got 5 tensors, wanted 4"), std::string::npos);
  std::vector<NamedTensor> sorted(saved.rbegin(), saved.rend());  // files keep no order
  EXPECT_TRUE(restore(sorted).ok());
  std::vector<NamedTensor> turned = saved;
  turned[0].value = turned[0].value.t();
  EXPECT_NE(restore(turned).message().find("wanted [3, 24]"), std::string::npos);
  std::vector<NamedTensor> renamed = saved;
  renamed[1].name = "c.q_proj.A";
  EXPECT_EQ(restore(renamed).code(), Code::kInvalidArgument);
  for (const double bad : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    std::vector<NamedTensor> odd = saved;
    odd[3].value = odd[3].value.clone();
    odd[3].value[0][1] = bad;
    EXPECT_EQ(restore(odd).code(), Code::kInvalidArgument) << bad;
  }
}

TEST(RoseLoraTest, TheClampBoundsEveryEntryOncePruningHasBegun) {
  AdapterState state =
      State(Spec({{"roselora.start", "1"}, {"roselora.end", "4"}, {"roselora.clamp", "0.003"}}));
  const std::unique_ptr<StepRule> rule = Rule(state, {.total_steps = 100});
  for (uint64_t t = 0; t < 2; ++t) Step(*rule, state, t);
  EXPECT_GT(state.sites[0].Get("A").abs().max().item<float>(), 0.1f);
  Step(*rule, state, 2);
  for (const SiteState& site : state.sites) {
    EXPECT_LE(site.Get("A").abs().max().item<float>(), 0.003f);
    EXPECT_EQ(site.Get("B").abs().max().item<float>(), 0.003f);
  }
}

TEST(RoseLoraTest, KeepingAllIsLoraAndCountsCanBeExact) {
  AdapterState dense = State(Spec({{"roselora.keep", "1"}, {"roselora.end", "0.1"}}));
  AdapterState exact = State(Spec({{"roselora.keep", "0.25"},
                                   {"roselora.start", "0"},
                                   {"roselora.end", "1"},
                                   {"roselora.count", "exact"}}));
  const std::unique_ptr<StepRule> keeps = Rule(dense, {.total_steps = 4});
  const std::unique_ptr<StepRule> counts = Rule(exact, {.total_steps = 4});
  for (uint64_t t = 0; t < 4; ++t) {
    Step(*keeps, dense, t);
    Step(*counts, exact, t);
  }
  EXPECT_EQ(NonZero(dense.sites[0].Get("B")), 20 * 3);
  EXPECT_TRUE((exact.sites[0].Get("A").ne(0).sum(1) == 6).all().item<bool>());
  EXPECT_TRUE((exact.sites[1].Get("B").ne(0).sum(0) == 3).all().item<bool>());
}

TEST(RoseLoraTest, OptionsThatCannotBeUsedAreRefusedByName) {
  const auto check = [](const std::string& option, const std::string& value) {
    return RoseLoraAdapter()->CheckSpec(Spec({{option, value}}));
  };
  for (const char* keep : {"0", "-0.1", "1.01", "nan", "inf", "", "5%", "0.05x"}) {
    const Status status = check("roselora.keep", keep);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << keep;
    EXPECT_NE(status.message().find("roselora.keep"), std::string::npos) << status;
  }
  EXPECT_TRUE(check("roselora.keep", "1").ok());
  EXPECT_TRUE(check("roselora.start", "3").ok());  // steps, before a share of them
  EXPECT_FALSE(check("roselora.start", "2.5").ok());
  EXPECT_FALSE(check("roselora.start", "0.9").ok());  // behind the end, 0.8
  EXPECT_FALSE(check("roselora.end", "-1").ok());
  EXPECT_FALSE(check("roselora.beta", "1").ok());
  EXPECT_FALSE(check("roselora.clamp", "-0.003").ok());
  EXPECT_FALSE(check("roselora.count", "ceiling").ok());
  EXPECT_FALSE(check("roselora.kept", "0.05").ok());
  EXPECT_TRUE(
      RoseLoraAdapter()
          ->CheckSpec(
              Spec({{"roselora.start", "3"}, {"roselora.end", "20"}, {"roselora.clamp", "0.003"}}))
          .ok());
}

TEST(RoseLoraTest, CentralSensitivityIsThatOfTheSummedGradientAndBelowTheMeanOfTheSites) {
  at::manual_seed(2);
  const at::Tensor theta = at::randn({3, 8}, at::kDouble);
  const std::vector<at::Tensor> gradients = {at::randn({3, 8}, at::kDouble),
                                             at::randn({3, 8}, at::kDouble)};
  const std::vector<at::Tensor> products = {theta * gradients[0], theta * gradients[1]};
  const std::vector<double> p = {0.25, 0.75};
  const at::Tensor central = RoseCentralSensitivity(products, p);
  const at::Tensor pooled = gradients[0] * 0.25 + gradients[1] * 0.75;
  EXPECT_TRUE(at::allclose(central, RoseSensitivity(theta, pooled), 1e-12, 1e-14));
  const at::Tensor bound = products[0].abs() * 0.25 + products[1].abs() * 0.75;
  EXPECT_TRUE((central <= bound + 1e-12).all().item<bool>());
  EXPECT_GT((bound - central).max().item<double>(), 0.01);
}

}  // namespace
}  // namespace weft
