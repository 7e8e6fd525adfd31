#include "common/adapters/msplora_stages.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"

namespace weft {
namespace {

class StagedTiers final : public StepRule {
 public:
  StagedTiers(std::vector<std::string> tiers, const StepSchedule& schedule)
      : tiers_(std::move(tiers)), schedule_(schedule) {}

  void BeforeStep(AdapterState& state) override {
    before_.clear();
    MapTensors(state.sites, [&](const NamedTensor& tensor) {
      at::Tensor value = tensor.value;
      if (!Trains(tensor) && value.grad().defined()) value.mutable_grad().zero_();
      before_.push_back({value, value.detach().clone(), Trains(tensor)});
      return tensor.value;
    });
  }

  void AfterStep(AdapterState&) override {
    const double share = 1 / BiasExcess(schedule_, StepsSeen(), Counted());
    for (Kept& kept : before_) {
      at::Tensor value = kept.tensor.detach();
      if (!kept.trains) {
        value.copy_(kept.value);
      } else if (share != 1) {
        value.sub_(kept.value).mul_(share).add_(kept.value);
      }
    }
    before_.clear();
    ++step_;
  }

 private:
  struct Kept {
    at::Tensor tensor;
    at::Tensor value;  // before the step
    bool trains;
  };

  int64_t stages() const { return static_cast<int64_t>(tiers_.size()); }
  int64_t StepOfRun() const { return schedule_.steps_done + step_; }
  int64_t Stage() const { return StageOf(stages(), StepOfRun(), schedule_.total_steps); }

  bool Trains(const NamedTensor& tensor) const {
    const std::string& tier = tiers_[static_cast<size_t>(Stage())];
    return tensor.name.size() > tier.size() && tensor.name.starts_with(tier) &&
           tensor.name[tier.size()] == '.';
  }

  // Of the optimiser, this step included.
  int64_t Counted() const { return schedule_.moment_steps + step_ + 1; }

  // Those of them in which this stage's tier had gradients.
  int64_t StepsSeen() const {
    const int64_t total = std::max<int64_t>(schedule_.total_steps, 1);
    const int64_t begin = (Stage() * total + stages() - 1) / stages();
    return std::min(StepOfRun() - begin + 1, Counted());
  }

  std::vector<std::string> tiers_;
  StepSchedule schedule_;
  int64_t step_ = 0;  // of this training
  std::vector<Kept> before_;
};

}  // namespace

int64_t StageOf(int64_t stages, int64_t step, int64_t total_steps) {
  const int64_t total = std::max<int64_t>(total_steps, 1);
  return std::min(stages * step / total, stages - 1);
}

double BiasExcess(const StepSchedule& schedule, int64_t seen, int64_t counted) {
  const auto corrected = [&](int64_t steps) {
    const auto k = static_cast<double>(steps);
    return (1 - std::pow(schedule.beta1, k)) / std::sqrt(1 - std::pow(schedule.beta2, k));
  };
  return corrected(seen) / corrected(counted);
}

std::unique_ptr<StepRule> NewStagedTiers(std::vector<std::string> tiers,
                                         const StepSchedule& schedule) {
  WEFT_CHECK(!tiers.empty(), "staged training of no tier");
  return std::make_unique<StagedTiers>(std::move(tiers), schedule);
}

}  // namespace weft
