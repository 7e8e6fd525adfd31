#include "aggregator/strategies/server_optimizer.h"

#include <cmath>

namespace weft {
namespace {

constexpr char kFirst[] = "m";
constexpr char kFirstA[] = "m.A";
constexpr char kFirstB[] = "m.B";
constexpr char kSecond[] = "v";
constexpr char kTau[] = "tau";

at::Tensor Find(const std::vector<NamedTensor>& memory, std::string_view name) {
  for (const NamedTensor& tensor : memory) {
    if (tensor.name == name) return tensor.value.to(at::kDouble);
  }
  return {};
}

NamedTensor Keep(std::string_view name, const at::Tensor& value) {
  return {std::string(name), value.to(at::kFloat).contiguous()};
}

// How v goes on with the squares of a change.
at::Tensor NextSecond(const ServerOptimizerSettings& s, const at::Tensor& v,
                      const at::Tensor& squares) {
  if (s.name == "adagrad") return v + squares;
  if (s.name == "yogi") return v - (1 - s.beta2) * squares * (v - squares).sign();
  return s.beta2 * v + (1 - s.beta2) * squares;
}

// τ stands in units of the first change, so that it means the same at every scale of updates.
double TauOf(const ServerOptimizerSettings& settings, const std::vector<NamedTensor>& memory,
             double rms) {
  const at::Tensor kept = Find(memory, kTau);
  return kept.defined() ? kept.item<double>() : settings.tau * rms;
}

}  // namespace

at::Tensor OptimizerStep(const ServerOptimizerSettings& s, double tau, const at::Tensor& d,
                         Moments& moments) {
  if (!moments.m.defined()) moments.m = at::zeros_like(d);
  if (s.name == "momentum") {
    moments.m = s.beta1 * moments.m + d;
    return s.lr * moments.m;
  }
  if (!moments.v.defined()) moments.v = at::full_like(d, tau * tau);
  moments.v = NextSecond(s, moments.v, d.square());
  if (s.name != "adagrad") moments.m = s.beta1 * moments.m + (1 - s.beta1) * d;
  return s.lr * (s.name == "adagrad" ? d : moments.m) / (moments.v.sqrt() + tau);
}

at::Tensor FollowElements(const ServerOptimizerSettings& settings, const at::Tensor& d,
                          std::vector<NamedTensor>& memory) {
  const double tau = TauOf(settings, memory, d.square().mean().sqrt().item<double>());
  if (tau == 0) return d;  // nothing has moved yet
  Moments moments{Find(memory, kFirst), Find(memory, kSecond)};
  at::Tensor step = OptimizerStep(settings, tau, d, moments);
  memory = {Keep(kFirst, moments.m), Keep(kTau, at::full({1}, tau))};
  if (moments.v.defined()) memory.push_back(Keep(kSecond, moments.v));
  return step;
}

LowRankSum FollowProduct(const ServerOptimizerSettings& s, const LowRankSum& d, int64_t rank,
                         std::vector<NamedTensor>& memory) {
  const double elements = static_cast<double>(d.out()) * static_cast<double>(d.in());
  const double norm = FrobeniusNorm(d);
  const double tau = TauOf(s, memory, norm / std::sqrt(elements));
  if (tau == 0) return d;
  LowRankSum followed(d.out(), d.in());
  if (s.name == "adagrad") {
    followed = d;
  } else {
    const at::Tensor A_RI = Find(memory, kFirstA);
    if (A_RI.defined()) followed.Add({A_RI, Find(memory, kFirstB)}, s.beta1);
    followed.Add(d, s.name == "momentum" ? 1 : 1 - s.beta1);
  }
  double scale = s.lr;
  std::vector<NamedTensor> next = {Keep(kTau, at::full({1}, tau, at::kDouble))};
  if (s.name != "momentum") {
    at::Tensor v = Find(memory, kSecond);
    if (!v.defined()) v = at::full({1}, tau * tau, at::kDouble);
    v = NextSecond(s, v, at::full({1}, norm * norm / elements, at::kDouble));
    scale /= std::sqrt(v.item<double>()) + tau;
    next.push_back(Keep(kSecond, v));
  }
  if (s.name != "adagrad") {
    const Recompressed cut = Recompress(followed, [rank](const at::Tensor&) { return rank; });
    next.push_back(Keep(kFirstA, cut.V_IQ.t()));
    next.push_back(Keep(kFirstB, cut.U_OQ * cut.S_Q));
  }
  memory = std::move(next);
  LowRankSum step(d.out(), d.in());
  step.Add(followed, scale);
  return step;
}

std::vector<NamedTensor> MemoryOf(const std::vector<NamedTensor>& memory, const std::string& path) {
  std::vector<NamedTensor> own;
  const std::string prefix = path + ":";
  for (const NamedTensor& tensor : memory) {
    if (tensor.name.starts_with(prefix)) {
      own.push_back({tensor.name.substr(prefix.size()), tensor.value});
    }
  }
  return own;
}

std::vector<NamedTensor> Remembered(const std::vector<NamedTensor>& memory, const std::string& path,
                                    const std::string& side, const std::vector<NamedTensor>& own) {
  std::vector<NamedTensor> kept;
  std::vector<NamedTensor> before = MemoryOf(memory, path);
  for (NamedTensor& tensor : before) {
    if (!tensor.name.starts_with(side + ":")) kept.push_back(std::move(tensor));
  }
  for (const NamedTensor& tensor : own) kept.push_back({side + ":" + tensor.name, tensor.value});
  return kept;
}

}  // namespace weft
