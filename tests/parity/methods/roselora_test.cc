// golden/roselora: the recorded run of the official code (official.*), the paper's rule in numpy
// (paper_numpy.*); golden/federation: the exact mean of sparse factors (rose.*).
//
// Shape legend: T steps, P pruned steps, R rank, I in, O out.

#include "common/adapters/roselora.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <gtest/gtest.h>

#include "common/adapters/merge.h"
#include "tests/parity/methods/golden_set.h"
#include "tests/support/strategy_world.h"

namespace weft::testing {
namespace {

constexpr char kRun[] = "official.";

// The editor's constants (README): smoothing, and the kept share where a recording ends before it.
constexpr double kBeta = 0.8;
constexpr double kKeep = 0.05;

// t_i and t_f of recorded rates: 1 − ∛((rate − τ)/(1 − τ)) grows by 1/(t_f − t_i) a step from 0 at
// t_i, whatever the length of the recording.
RoseSchedule ScheduleOf(const std::vector<double>& rates) {
  RoseSchedule schedule{.keep = kKeep};
  const size_t last = rates.size() - 1;
  if (last > 0 && rates[last] == rates[last - 1]) schedule.keep = rates[last];
  const auto gone = [&](size_t t) {
    return 1 - std::cbrt((rates[t] - schedule.keep) / (1 - schedule.keep));
  };
  size_t first = 0;
  while (first < last && rates[first] >= 1) ++first;
  const size_t second = first + 1;
  if (second > last || rates[second] <= schedule.keep) {
    throw GoldenError("the rates hold no two steps of the schedule's slope");
  }
  const double length = std::round(1 / (gone(second) - gone(first)));
  schedule.start = std::round(static_cast<double>(first) - gone(first) * length);
  schedule.end = schedule.start + length;
  return schedule;
}

int64_t FirstPruned(const RoseSchedule& schedule) {
  int64_t step = 0;
  while (RoseKeepRate(schedule, step) >= 1) ++step;
  return step;
}

// One recorded matrix.
struct Recorded {
  std::string prefix;  // "official.qA."
  at::Tensor before_T, gradient_T, adam_T, after_T;
  int64_t dim = 0;  // along which entries are counted: 1 in rows of A, 0 in columns of B
  [[nodiscard]] int64_t length() const { return before_T.size(dim + 1); }
};

// Rows or columns: thresholds are [P×R×1] or [P×1×R]. With one row or column either may fit; then k
// says which length it was taken of.
int64_t PrunedDim(GoldenSet& golden, const std::string& prefix, const at::Tensor& before_T,
                  double rate) {
  const at::Tensor threshold = golden.Get(prefix + "thr");
  std::vector<int64_t> fitting;
  for (const int64_t dim : {int64_t{1}, int64_t{0}}) {
    if (threshold.size(dim + 1) == 1 && threshold.size(2 - dim) == before_T.size(2 - dim)) {
      fitting.push_back(dim);
    }
  }
  const int64_t order = golden.Integers(prefix + "k").back();
  for (const int64_t dim : fitting) {
    if (fitting.size() == 1 || RoseOrder(before_T.size(dim + 1), rate) == order) return dim;
  }
  throw GoldenError(prefix + "thr is of neither rows nor columns");
}

Recorded ReadRecorded(GoldenSet& golden, const std::string& module, double last_rate) {
  Recorded recorded;
  recorded.prefix = kRun + module + ".";
  recorded.before_T = golden.Get(recorded.prefix + "p_before");
  recorded.gradient_T = golden.Get(recorded.prefix + "grad");
  recorded.adam_T = golden.Get(recorded.prefix + "p_after_adam");
  recorded.after_T = golden.Get(recorded.prefix + "p_after_prune");
  if (recorded.before_T.dim() != 3) throw GoldenError(recorded.prefix + "p_before: no [T×…×…]");
  recorded.dim = PrunedDim(golden, recorded.prefix, recorded.before_T, last_rate);
  return recorded;
}

// The clamp of a run: once it has begun to bite, the largest entry is the bound.
double ClampOf(const std::vector<Recorded>& run, int64_t first_pruned) {
  double bound = 0;
  for (const Recorded& recorded : run) {
    const at::Tensor pruned = recorded.after_T.slice(0, first_pruned);
    bound = std::max(bound, pruned.abs().max().item<double>());
  }
  return bound;
}

// Score, order, threshold and pruning of one matrix through the method's functions.
void ExpectRecorded(GoldenSet& golden, const Recorded& recorded, const RoseSchedule& schedule,
                    int64_t first_pruned, double clamp) {
  std::vector<at::Tensor> scores, thresholds, after;
  std::vector<int64_t> orders;
  at::Tensor smoothed;
  for (int64_t t = 0; t < recorded.before_T.size(0); ++t) {
    at::Tensor score = RoseSensitivity(recorded.before_T[t], recorded.gradient_T[t]);
    if (smoothed.defined()) {
      RoseSmooth(smoothed, score, kBeta);
    } else {
      smoothed = score;
    }
    after.push_back(recorded.adam_T[t].clone());
    if (t < first_pruned) continue;
    scores.push_back(smoothed.clone());
    orders.push_back(RoseOrder(recorded.length(), RoseKeepRate(schedule, t)));
    ASSERT_GE(orders.back(), 1) << recorded.prefix << " step " << t;
    thresholds.push_back(RoseThreshold(smoothed, orders.back(), recorded.dim));
    after.back().masked_fill_(RosePruned(smoothed, thresholds.back()), 0);
    after.back().clamp_(-clamp, clamp);
  }
  const at::Tensor all = at::stack(scores);
  const at::Tensor wanted = golden.Get(recorded.prefix + "imp");
  ASSERT_EQ(all.sizes(), wanted.sizes()) << recorded.prefix;
  EXPECT_TRUE(at::allclose(all, wanted, 1e-6, 1e-30)) << recorded.prefix << "imp";
  golden.ExpectEqual(recorded.prefix + "k", at::tensor(orders));
  golden.ExpectClose(recorded.prefix + "thr", at::stack(thresholds), 1e-6);
  golden.ExpectEqual(recorded.prefix + "p_after_prune", at::stack(after));
}

// The recorded matrices as an adapter: each beside a factor of ones that nothing is pruned of.
AdapterState StateOf(const std::vector<Recorded>& run, const RoseSchedule& schedule, double clamp) {
  AdapterState state;
  state.spec.method = "roselora";
  const auto number = [](double value) {
    std::array<char, 64> text;  // every digit: a clamp that is off by a bit is another clamp
    return std::string(text.data(), std::to_chars(text.begin(), text.end(), value).ptr);
  };
  state.spec.options = {{"roselora.keep", number(schedule.keep)},
                        {"roselora.start", number(schedule.start)},
                        {"roselora.end", number(schedule.end)},
                        {"roselora.beta", number(kBeta)},
                        {"roselora.clamp", number(clamp)}};
  for (const Recorded& recorded : run) {
    const at::Tensor matrix = recorded.before_T[0].clone();
    const bool is_B = recorded.dim == 0;
    const at::Tensor A = is_B ? at::ones({matrix.size(1), 1}) : matrix;
    const at::Tensor B = is_B ? matrix : at::ones({1, matrix.size(0)});
    state.sites.push_back({{recorded.prefix, A.size(1), B.size(0)}, {{"A", A}, {"B", B}}});
    for (NamedTensor& tensor : state.sites.back().tensors) {
      tensor.value.mutable_grad() = at::zeros_like(tensor.value);
    }
  }
  return state;
}

// The same run through the rule that training drives, all matrices together.
void ExpectRuleRepeatsTheRun(const std::vector<Recorded>& run, const RoseSchedule& schedule,
                             double clamp) {
  const at::NoGradGuard no_grad;
  AdapterState state = StateOf(run, schedule, clamp);
  const Status usable = RoseLoraAdapter()->CheckSpec(state.spec);
  ASSERT_TRUE(usable.ok()) << usable;
  const int64_t steps = run[0].before_T.size(0);
  const std::unique_ptr<StepRule> rule =
      RoseLoraAdapter()->NewStepRule(state, {.total_steps = steps});
  for (int64_t t = 0; t < steps; ++t) {
    for (size_t i = 0; i < run.size(); ++i) {
      at::Tensor& matrix = state.sites[i].Get(run[i].dim == 0 ? "B" : "A");
      matrix.copy_(run[i].before_T[t]);
      matrix.mutable_grad().copy_(run[i].gradient_T[t]);
    }
    rule->BeforeStep(state);
    for (size_t i = 0; i < run.size(); ++i) {
      state.sites[i].Get(run[i].dim == 0 ? "B" : "A").copy_(run[i].adam_T[t]);
    }
    rule->AfterStep(state);
    for (size_t i = 0; i < run.size(); ++i) {
      const at::Tensor& matrix = state.sites[i].Get(run[i].dim == 0 ? "B" : "A");
      EXPECT_TRUE(at::equal(matrix, run[i].after_T[t])) << run[i].prefix << " step " << t;
    }
  }
}

TEST(RoseloraParity, TheRecordedRunOfTheOfficialCode) {
  GoldenSet golden("roselora/roselora.safetensors");
  const std::vector<double> rates = golden.Numbers(std::string(kRun) + "rate");
  const RoseSchedule schedule = ScheduleOf(rates);
  std::vector<double> got;
  for (size_t t = 0; t < rates.size(); ++t) {
    got.push_back(RoseKeepRate(schedule, static_cast<int64_t>(t)));
  }
  golden.ExpectClose(std::string(kRun) + "rate", at::tensor(got, at::kDouble), 1e-12);
  const int64_t first = FirstPruned(schedule);
  EXPECT_EQ(golden.Integer(std::string(kRun) + "first_pruned_step"), first);
  std::vector<Recorded> run;
  for (const std::string& module : golden.Between(kRun, ".p_before")) {
    run.push_back(ReadRecorded(golden, module, rates.back()));
    ASSERT_EQ(run.back().before_T.size(0), static_cast<int64_t>(rates.size())) << module;
  }
  ASSERT_FALSE(run.empty());
  const double clamp = ClampOf(run, first);
  for (const Recorded& recorded : run) {
    ExpectRecorded(golden, recorded, schedule, first, clamp);
    // What one step leaves is what the next begins with.
    EXPECT_TRUE(at::equal(recorded.before_T.slice(0, 1), recorded.after_T.slice(0, 0, -1)));
  }
  ExpectRuleRepeatsTheRun(run, schedule, clamp);
  golden.ExpectAllUsed(kRun);
}

// ---- the paper's rule: exact counts, no clamp, plain SGD, float64 ----

void ExpectPaper(GoldenSet& golden, const std::string& prefix, const char* factor, int64_t dim,
                 const std::vector<double>& rates) {
  const double lr = golden.Number(prefix + "lr");
  const double beta = golden.Number(prefix + "beta");
  const at::Tensor gradient_T = golden.Doubles(prefix + "grad" + factor, {-1, -1, -1});
  ASSERT_EQ(gradient_T.size(0), static_cast<int64_t>(rates.size()));
  at::Tensor value = golden.Doubles(prefix + factor + "0");
  at::Tensor smoothed = at::zeros_like(value);  // the paper's smoothing begins with nothing
  std::vector<at::Tensor> scores, masks, values;
  for (size_t t = 0; t < rates.size(); ++t) {
    const at::Tensor gradient = gradient_T[static_cast<int64_t>(t)];
    at::Tensor score = RoseSensitivity(value, gradient);
    RoseSmooth(smoothed, score, beta);
    const at::Tensor pruned = RosePrunedExactly(smoothed, rates[t], dim);
    value = (value - lr * gradient).masked_fill_(pruned, 0);
    scores.push_back(smoothed.clone());
    masks.push_back(pruned.logical_not());
    values.push_back(value);
  }
  golden.ExpectClose(prefix + "imp" + factor, at::stack(scores), 1e-12);
  golden.ExpectEqual(prefix + "mask" + factor, at::stack(masks).to(at::kByte));
  golden.ExpectClose(prefix + factor, at::stack(values), 1e-12);
}

TEST(RoseloraParity, TheRuleOfThePaper) {
  GoldenSet golden("roselora/roselora.safetensors");
  for (const std::string& prefix : golden.Cases("sched")) {
    SCOPED_TRACE(prefix);
    const std::vector<double> sched = golden.Numbers(prefix + "sched");  // T, t_i, t_f
    ASSERT_EQ(sched.size(), 3u);
    const RoseSchedule schedule{
        .keep = golden.Number(prefix + "tau_target"), .start = sched[1], .end = sched[2]};
    std::vector<double> rates;
    for (int64_t t = 1; t <= static_cast<int64_t>(sched[0]); ++t) {
      rates.push_back(RoseKeepRate(schedule, t));
    }
    golden.ExpectClose(prefix + "keep", at::tensor(rates, at::kDouble), 1e-12);
    ExpectPaper(golden, prefix, "A", 1, rates);
    ExpectPaper(golden, prefix, "B", 0, rates);
    golden.ExpectAllUsed(prefix);
  }
}

TEST(RoseloraParity, EveryTensorOfTheFileBelongsToOneOfTheTwo) {
  GoldenSet golden("roselora/roselora.safetensors");
  for (const std::string& name : golden.Names(kRun)) golden.Use(name);
  for (const std::string& prefix : golden.Cases("sched")) {
    for (const std::string& name : golden.Names(prefix)) golden.Use(name);
  }
  golden.ExpectAllUsed();
}

// ---- federation ----

constexpr char kRose[] = "rose.";

// The clients' sparse factors as updates of one site, their scaling as alpha.
MemoryUpdates Clients(GoldenSet& golden, const std::vector<double>& p, const char* method) {
  const double scale = golden.Number(std::string(kRose) + "scale");
  std::vector<MemoryClient> clients;
  for (size_t k = 0; k < p.size(); ++k) {
    const std::string client = Str(kRose, "client", k, ".");
    const at::Tensor A_RI = golden.Doubles(client + "A", {-1, -1});
    const int64_t rank = A_RI.size(0);
    AdapterSpec spec = LoraSpec(rank, scale * static_cast<double>(rank));
    spec.method = method;
    clients.push_back({{ClientId{Str("c", k)}, spec},
                       p[k],
                       {LowRank{A_RI, golden.Doubles(client + "B", {-1, rank})}}});
  }
  return MemoryUpdates(std::move(clients));
}

LowRank MergedBy(const std::string& strategy, const MemoryUpdates& updates) {
  const LowRank first = *updates.Factors(0, 0);
  const LinearSite site{MemoryUpdates::Path(0), first.A_RI.size(1), first.B_OR.size(0)};
  GlobalState global{strategy, LoraSpec(1, 1), {}};
  global.adapter.sites.push_back({site,
                                  {{"A", at::zeros({1, site.in}, at::kDouble)},
                                   {"B", at::zeros({site.out, 1}, at::kDouble)}}});
  global.adapter.spec = UnitSpec(global.init, global.adapter.sites);
  const StrategySettings settings{.name = strategy};
  const Result<const Strategy*> rule = FindStrategy(strategy);
  WEFT_CHECK(rule.ok(), rule.status());
  const RoundSurvey append{.ranks = {-1}};
  Result<SiteMerge> merge = (*rule)->MergeSite({settings, global, updates}, append, 0);
  WEFT_CHECK(merge.ok(), merge.status());
  return merge->factors;
}

TEST(FederationParity, RoseloraMeanIsExactInsideTheUnionOfTheSupports) {
  GoldenSet golden("federation/exact_merge.safetensors");
  const std::vector<double> p = golden.Numbers("p");
  ASSERT_EQ(golden.Count(std::string(kRose) + "client"), static_cast<int64_t>(p.size()));
  const MemoryUpdates updates = Clients(golden, p, "roselora");
  at::Tensor touched;
  for (size_t k = 0; k < updates.size(); ++k) {
    const LowRank factors = *updates.Factors(k, 0);
    const at::Tensor own = Product({factors.A_RI.ne(0), factors.B_OR.ne(0)}).ne(0);
    touched = touched.defined() ? touched | own : own;
  }
  golden.ExpectEqual(std::string(kRose) + "support_union", touched.to(at::kByte));

  const LowRank stack = MergedBy("flora", updates);
  golden.ExpectClose(std::string(kRose) + "mean_delta_W", Product(stack), 1e-11);
  EXPECT_FALSE(Product(stack).ne(0).masked_select(touched.logical_not()).any().item<bool>());

  // Folded into a base, entries that nobody touched keep their bits.
  const LinearSite site{MemoryUpdates::Path(0), stack.A_RI.size(1), stack.B_OR.size(0)};
  const at::Tensor base = RandomMatrix(site.out, site.in, "base").to(at::kBFloat16);
  const auto merged = MergeIntoWeights({{site.path + ".weight", base}}, {{site, stack}}, {});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE(at::equal((*merged)[0].value.masked_select(touched.logical_not()),
                        base.masked_select(touched.logical_not())));

  // The product of the means, as of LoRA clients, reaches further and is another matrix.
  const LowRank means = MergedBy("fedavg", Clients(golden, p, "lora"));
  golden.ExpectClose(std::string(kRose) + "naive_delta_W", Product(means), 1e-11);
  golden.ExpectAllUsed(kRose);
}

}  // namespace
}  // namespace weft::testing
