#include "common/adapters/roselora.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "common/adapters/lora.h"
#include "common/adapters/method_spec.h"
#include "common/base/str.h"

// Shape legend: S factors of one shape, R rank, I in, O out, N length of a pruned row or column.

namespace weft {
namespace {

constexpr std::string_view kOrderStatistic = "order-statistic";
constexpr std::string_view kExact = "exact";
constexpr double kStepsMax = 1e12;

// A point of the schedule as the option says it.
struct Point {
  double value = 0;
  [[nodiscard]] bool is_share() const { return value < 1; }
  [[nodiscard]] double Steps(int64_t total) const {
    return is_share() ? value * static_cast<double>(total) : value;
  }
};

struct Options {
  [[nodiscard]] RoseSchedule Schedule(int64_t total_steps) const {
    return {keep, start.Steps(total_steps), end.Steps(total_steps)};
  }

  double keep = 0;
  Point start;
  Point end;
  double beta = 0;
  double clamp = 0;
  bool exact = false;
};

Result<Point> PointOption(const AdapterSpec& spec, std::string_view name, double standard) {
  WEFT_TRY_ASSIGN(const double value, NumberOption(spec, name, standard, 0, kStepsMax));
  if (value < 1 || value == std::floor(value)) return Point{value};
  return InvalidArgument(Str("[adapter] option roselora.", name, " is ", value,
                             ", wanted a whole number of steps, or a share of them below 1"));
}

Result<Options> ReadOptions(const AdapterSpec& spec) {
  Options options;
  WEFT_TRY_ASSIGN(options.keep, NumberOption(spec, "keep", 0.05, 0, 1));
  if (options.keep == 0) {
    return InvalidArgument(
        "[adapter] option roselora.keep is 0, wanted more than 0 and at most 1: an adapter without "
        "entries learns nothing");
  }
  WEFT_TRY_ASSIGN(options.start, PointOption(spec, "start", 0.1));
  WEFT_TRY_ASSIGN(options.end, PointOption(spec, "end", 0.8));
  if (options.start.is_share() == options.end.is_share() &&
      options.start.value > options.end.value) {
    return InvalidArgument(Str("[adapter] option roselora.start is ", options.start.value,
                               ", behind roselora.end, ", options.end.value));
  }
  WEFT_TRY_ASSIGN(options.beta, NumberOption(spec, "beta", 0.8, 0, 1));
  if (options.beta == 1) {
    return InvalidArgument(
        "[adapter] option roselora.beta is 1, wanted 0 or more and less than 1: scores would stay "
        "those of the first step");
  }
  WEFT_TRY_ASSIGN(options.clamp, NumberOption(spec, "clamp", 0, 0, 1e30));
  WEFT_TRY_ASSIGN(const std::string count, WordOption(spec, "count", {kOrderStatistic, kExact}));
  options.exact = count == kExact;
  return options;
}

// Scores of the factors of one kind and shape, one behind the other: as few, large operations as
// there are shapes. A column of B lies in a row here, so all is pruned along the last dimension.
struct Group {
  const char* name = "";  // "A" or "B"
  std::vector<size_t> sites;
  at::Tensor smoothed_SRN;
  at::Tensor score_SRN;           // of this step
  std::vector<at::Tensor> views;  // of score_SRN, each as its factor lies: [R×I] or [O×R]

  [[nodiscard]] at::Tensor AsFactor(const at::Tensor& one_RN) const {
    return name[0] == 'B' ? one_RN.t() : one_RN;
  }
};

class Pruning final : public StepRule {
 public:
  Pruning(const AdapterState& state, const Options& options, const StepSchedule& schedule)
      : options_(options),
        schedule_(options.Schedule(schedule.total_steps)),
        step_(schedule.steps_done) {
    for (const char* name : {"A", "B"}) {
      for (size_t i = 0; i < state.sites.size(); ++i) Place(state.sites[i].Get(name), name, i);
    }
    for (Group& group : groups_) Allocate(group, state);
    for (const SiteState& site : state.sites) paths_.push_back(site.site.path);
  }

  void BeforeStep(AdapterState& state) override {
    for (Group& group : groups_) {
      for (size_t j = 0; j < group.sites.size(); ++j) {
        const at::Tensor& factor = state.sites[group.sites[j]].Get(group.name);
        at::mul_out(group.views[j], factor.detach(), factor.grad());
      }
      group.score_SRN.abs_();
      if (scored_) {
        RoseSmooth(group.smoothed_SRN, group.score_SRN, options_.beta);
      } else {
        group.smoothed_SRN.copy_(group.score_SRN);  // nothing to smooth with
      }
    }
    scored_ = true;
  }

  void AfterStep(AdapterState& state) override {
    const double rate = RoseKeepRate(schedule_, step_++);
    if (rate >= 1) return;
    for (Group& group : groups_) Prune(group, rate, state);
  }

  std::vector<NamedTensor> Save() const override {
    std::vector<NamedTensor> saved;
    if (!scored_) return saved;
    for (const Group& group : groups_) {
      for (size_t j = 0; j < group.sites.size(); ++j) {
        const at::Tensor one = group.AsFactor(group.smoothed_SRN[static_cast<int64_t>(j)]);
        saved.push_back({Name(group, j), one.to(at::kCPU, at::kFloat).contiguous().clone()});
      }
    }
    return saved;
  }

  // In whatever order they were kept.
  Status Restore(const std::vector<NamedTensor>& saved) override {
    std::vector<at::Tensor> scores;
    for (const Group& group : groups_) {
      for (size_t j = 0; j < group.sites.size(); ++j) {
        WEFT_TRY_ASSIGN(at::Tensor score, Find(saved, Name(group, j), group.views[j].sizes()));
        scores.push_back(std::move(score));
      }
    }
    if (saved.size() != scores.size()) {
      return Other(Str("got ", saved.size(), " tensors, wanted ", scores.size()));
    }
    size_t next = 0;
    for (Group& group : groups_) {
      for (size_t j = 0; j < group.sites.size(); ++j) {
        group.AsFactor(group.smoothed_SRN[static_cast<int64_t>(j)]).copy_(scores[next++]);
      }
    }
    scored_ = true;
    return OkStatus();
  }

 private:
  void Place(const at::Tensor& factor, const char* name, size_t site) {
    for (size_t g = 0; g < groups_.size(); ++g) {
      if (groups_[g].name[0] != name[0] || shapes_[g] != factor.sizes()) continue;
      groups_[g].sites.push_back(site);
      return;
    }
    groups_.push_back({name, {site}, {}, {}, {}});
    shapes_.push_back(factor.sizes().vec());
  }

  static void Allocate(Group& group, const AdapterState& state) {
    const at::Tensor& first = state.sites[group.sites[0]].Get(group.name);
    const at::Tensor one_RN = group.AsFactor(first.detach());
    const auto count = static_cast<int64_t>(group.sites.size());
    group.smoothed_SRN = at::zeros({count, one_RN.size(0), one_RN.size(1)}, first.options());
    group.score_SRN = at::zeros_like(group.smoothed_SRN);
    for (int64_t j = 0; j < count; ++j) group.views.push_back(group.AsFactor(group.score_SRN[j]));
  }

  void Prune(const Group& group, double rate, AdapterState& state) const {
    const int64_t order = RoseOrder(group.smoothed_SRN.size(2), rate);
    at::Tensor pruned_SRN;
    if (options_.exact) {
      pruned_SRN = RosePrunedExactly(group.smoothed_SRN, rate, 2);
    } else if (order > 0) {
      pruned_SRN = RosePruned(group.smoothed_SRN, RoseThreshold(group.smoothed_SRN, order, 2));
    }
    for (size_t j = 0; j < group.sites.size(); ++j) {
      at::Tensor factor = state.sites[group.sites[j]].Get(group.name).detach();
      if (pruned_SRN.defined()) {
        factor.masked_fill_(group.AsFactor(pruned_SRN[static_cast<int64_t>(j)]), 0);
      }
      if (options_.clamp > 0) factor.clamp_(-options_.clamp, options_.clamp);
    }
  }

  [[nodiscard]] std::string Name(const Group& group, size_t j) const {
    return Str(paths_[group.sites[j]], ".", group.name);
  }

  static Status Other(const std::string& what) {
    return InvalidArgument("[roselora] the kept scores are of another adapter: " + what);
  }

  static Result<at::Tensor> Find(const std::vector<NamedTensor>& saved, const std::string& name,
                                 at::IntArrayRef shape) {
    const auto found = std::find_if(saved.begin(), saved.end(),
                                    [&](const NamedTensor& tensor) { return tensor.name == name; });
    if (found == saved.end()) return Other(name + " is missing");
    const at::Tensor& score = found->value;
    if (score.sizes() != shape) {
      return Other(Str(name, " is ", score.sizes(), ", wanted ", shape));
    }
    // Sensitivities are magnitudes; a NaN would put a row's order to no use.
    if (score.ge(0).logical_and(score.isfinite()).all().item<bool>()) return score;
    return Other(name + " holds what is no magnitude");
  }

  Options options_;
  RoseSchedule schedule_;
  int64_t step_;         // of the run
  bool scored_ = false;  // smoothed_SRN holds scores
  std::vector<Group> groups_;
  std::vector<std::vector<int64_t>> shapes_;  // of each group's factors
  std::vector<std::string> paths_;            // of the sites
};

class RoseLora final : public Adapter {
 public:
  std::string_view name() const override { return "roselora"; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckMethodSpec(spec, {"keep", "start", "end", "beta", "clamp", "count"}));
    return ReadOptions(spec).status();
  }

  // The factors are LoRA's in all but how they train.
  Result<std::vector<SiteLayout>> Layout(const AdapterSpec& spec,
                                         std::span<const LinearSite> sites) const override {
    return LoraAdapter()->Layout(spec, sites);
  }

  Result<AdapterState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                            uint64_t seed) const override {
    WEFT_TRY(CheckSpec(spec));
    WEFT_TRY_ASSIGN(AdapterState state, LoraAdapter()->Init(ForMethod(spec, "lora"), sites, seed));
    state.spec = spec;
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec&) const override { return {"A", "B"}; }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    return LoraAdapter()->Effective(state, site_index);
  }

  std::unique_ptr<StepRule> NewStepRule(const AdapterState& state,
                                        const StepSchedule& schedule) const override {
    const Result<Options> options = ReadOptions(state.spec);
    WEFT_CHECK(options.ok(), options.status());  // CheckSpec has seen them
    return std::make_unique<Pruning>(state, *options, schedule);
  }
};

}  // namespace

const Adapter* RoseLoraAdapter() {
  static const RoseLora method;
  return &method;
}

Result<RoseSchedule> RoseScheduleOf(const AdapterSpec& spec, int64_t total_steps) {
  WEFT_TRY_ASSIGN(const Options options, ReadOptions(spec));
  return options.Schedule(total_steps);
}

double RoseKeepRate(const RoseSchedule& schedule, int64_t step) {
  const auto t = static_cast<double>(step);
  if (t < schedule.start) return 1;
  if (t >= schedule.end) return schedule.keep;
  const double left = 1 - (t - schedule.start) / (schedule.end - schedule.start);
  return schedule.keep + (1 - schedule.keep) * std::pow(left, 3);
}

int64_t RoseOrder(int64_t length, double rate) {
  return static_cast<int64_t>(static_cast<double>(length) * (1 - rate));
}

at::Tensor RoseSensitivity(const at::Tensor& value, const at::Tensor& gradient) {
  return value.mul(gradient).abs_();
}

void RoseSmooth(at::Tensor& smoothed, at::Tensor& score, double beta) {
  smoothed.mul_(beta).add_(score.mul_(1 - beta));
}

at::Tensor RoseThreshold(const at::Tensor& smoothed, int64_t order, int64_t dim) {
  WEFT_CHECK(order >= 1 && order <= smoothed.size(dim), order, " of ", smoothed.size(dim));
  return std::get<0>(smoothed.kthvalue(order, dim, /*keepdim=*/true));
}

at::Tensor RosePruned(const at::Tensor& smoothed, const at::Tensor& threshold) {
  return smoothed < threshold;
}

at::Tensor RosePrunedExactly(const at::Tensor& smoothed, double rate, int64_t dim) {
  const int64_t length = smoothed.size(dim);
  const auto stay = static_cast<int64_t>(std::ceil(rate * static_cast<double>(length)));
  const at::Tensor best = std::get<1>(smoothed.sort(/*stable=*/true, dim, /*descending=*/true))
                              .narrow(dim, 0, std::clamp<int64_t>(stay, 0, length));
  return at::ones_like(smoothed, at::kBool).scatter_(dim, best, 0);
}

at::Tensor RoseCentralSensitivity(std::span<const at::Tensor> signed_products,
                                  std::span<const double> weights) {
  WEFT_CHECK(signed_products.size() == weights.size() && !weights.empty(), signed_products.size(),
             " products, ", weights.size(), " weights");
  at::Tensor sum = at::zeros_like(signed_products[0], at::kDouble);
  for (size_t k = 0; k < weights.size(); ++k) sum.add_(signed_products[k], weights[k]);
  return sum.abs_();
}

}  // namespace weft
