// FedProx (Li et al. 2020, eq. 2): the data's loss + ½µ‖θ − θ_sent‖², θ the trained parameters and
// θ_sent what the round started from. The proximal term's gradient is µ(θ − θ_sent).

#include <cmath>

#include "client/objectives/objective.h"
#include "common/base/check.h"
#include "common/base/str.h"

namespace weft {
namespace {

class FedProx final : public Objective {
 public:
  std::string_view name() const override { return "fedprox"; }

  Status Check(const LocalTraining& training) const override {
    if (std::isfinite(training.fedprox_mu) && training.fedprox_mu >= 0) return OkStatus();
    return InvalidArgument(
        Str("[train] fedprox_mu is ", training.fedprox_mu, ", wanted a number of 0 or more"));
  }

  bool NeedsStart() const override { return true; }

  void AddGradient(const LocalTraining& training, std::span<const at::Tensor> values,
                   std::span<const at::Tensor> start,
                   std::span<const at::Tensor> gradients) const override {
    WEFT_CHECK(values.size() == start.size() && values.size() == gradients.size());
    for (size_t i = 0; i < values.size(); ++i) {
      at::Tensor gradient = gradients[i];
      gradient.add_(values[i], training.fedprox_mu).sub_(start[i], training.fedprox_mu);
    }
  }
};

}  // namespace

const Objective* FedProxObjective() {
  static const FedProx objective;
  return &objective;
}

}  // namespace weft
