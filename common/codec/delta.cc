#include "common/codec/delta.h"

#include <functional>
#include <unordered_map>

namespace weft {
namespace {

using Combine = std::function<at::Tensor(const at::Tensor& own, const at::Tensor& other)>;

// Every tensor of `state` with that of `other` at the same place; those that `state` shares stay
// shared, for the wire sends them once.
Result<AdapterState> Combined(const AdapterState& state, const AdapterState& other,
                              const Combine& combine) {
  if (!SameLayout(state, other)) {
    return InvalidArgument("[delta] the update's tensors are not those that were sent");
  }
  const at::NoGradGuard no_grad;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> combined;  // looked up only
  AdapterState result = state;
  const auto change = [&](NamedTensor& to, const NamedTensor& own, const NamedTensor& with) {
    const auto [entry, is_new] = combined.try_emplace(own.value.unsafeGetTensorImpl());
    if (is_new) {
      entry->second = combine(own.value.detach().to(at::kCPU, at::kFloat),
                              with.value.detach().to(at::kCPU, at::kFloat));
    }
    to.value = entry->second;
  };
  for (size_t i = 0; i < state.sites.size(); ++i) {
    for (size_t t = 0; t < state.sites[i].tensors.size(); ++t) {
      change(result.sites[i].tensors[t], state.sites[i].tensors[t], other.sites[i].tensors[t]);
    }
  }
  for (size_t t = 0; t < state.dense.size(); ++t) {
    change(result.dense[t], state.dense[t], other.dense[t]);
  }
  return result;
}

}  // namespace

Result<AdapterState> ChangeOf(const AdapterState& state, const AdapterState& sent) {
  return Combined(state, sent,
                  [](const at::Tensor& own, const at::Tensor& from) { return own - from; });
}

at::Tensor WithChange(const at::Tensor& sent, const at::Tensor& change) {
  // −0 + 0 would be 0.
  return at::where(change == 0, sent, sent + change);
}

Result<AdapterState> WithChange(const AdapterState& sent, const AdapterState& change) {
  return Combined(change, sent, [](const at::Tensor& own, const at::Tensor& from) {
    return WithChange(from, own);
  });
}

}  // namespace weft
