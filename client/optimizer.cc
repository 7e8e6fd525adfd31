#include "client/optimizer.h"

#include "common/base/str.h"

namespace weft {
namespace {

at::Tensor Flat(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> pieces;
  for (const at::Tensor& tensor : tensors) pieces.push_back(tensor.reshape({-1}).to(at::kCPU));
  return pieces.size() == 1 ? pieces[0].clone() : at::cat(pieces);
}

void Unflatten(const at::Tensor& flat, std::vector<at::Tensor>& into) {
  int64_t begin = 0;
  for (at::Tensor& tensor : into) {
    tensor.copy_(flat.narrow(0, begin, tensor.numel()).view(tensor.sizes()));
    begin += tensor.numel();
  }
}

}  // namespace

AdamW::AdamW(const LocalTraining& training, ParameterSet& parameters)
    : training_(training), parameters_(parameters) {
  for (const at::Tensor& value : parameters_.values) {
    exp_avg_.push_back(at::zeros_like(value));
    exp_avg_sq_.push_back(at::zeros_like(value));
    steps_.push_back(at::zeros({}, value.options()));
  }
}

void AdamW::Step(double lr) {
  const at::NoGradGuard no_grad;
  ++step_;
  for (at::Tensor& step : steps_) step.fill_(static_cast<double>(step_));
  at::_fused_adamw_(parameters_.values, parameters_.gradients, exp_avg_, exp_avg_sq_, {}, steps_,
                    lr, training_.beta1, training_.beta2, training_.weight_decay, training_.eps,
                    /*amsgrad=*/false, /*maximize=*/false);
}

AdamW::Moments AdamW::Save() const { return {step_, Flat(exp_avg_), Flat(exp_avg_sq_)}; }

Status AdamW::Restore(const Moments& moments) {
  const int64_t wanted = parameters_.NumElements();
  for (const at::Tensor* moment : {&moments.exp_avg, &moments.exp_avg_sq}) {
    if (!moment->defined() || moment->numel() != wanted || moments.step < 0) {
      return InvalidArgument(Str("[train] the kept optimiser state has ",
                                 moment->defined() ? moment->numel() : 0, " numbers, wanted ",
                                 wanted));
    }
  }
  step_ = moments.step;
  Unflatten(moments.exp_avg, exp_avg_);
  Unflatten(moments.exp_avg_sq, exp_avg_sq_);
  return OkStatus();
}

}  // namespace weft
