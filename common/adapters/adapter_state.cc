#include "common/adapters/adapter_state.h"

#include "common/base/check.h"

namespace weft {
namespace {

bool SameTensors(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].name != b[i].name || a[i].value.sizes() != b[i].value.sizes()) return false;
  }
  return true;
}

int64_t Elements(const std::vector<NamedTensor>& tensors) {
  int64_t total = 0;
  for (const NamedTensor& tensor : tensors) total += tensor.value.numel();
  return total;
}

}  // namespace

const at::Tensor& SiteState::Get(std::string_view name) const {
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name == name) return tensor.value;
  }
  WEFT_CHECK(false, "site ", site.path, " has no tensor ", name);
}

at::Tensor& SiteState::Get(std::string_view name) {
  return const_cast<at::Tensor&>(std::as_const(*this).Get(name));
}

int64_t AdapterState::NumParameters() const {
  int64_t total = Elements(dense);
  for (const SiteState& site : sites) total += Elements(site.tensors);
  return total;
}

AdapterState CloneTo(const AdapterState& state, at::Device device, at::ScalarType dtype) {
  const auto clone = [&](NamedTensor& tensor) {
    tensor.value = tensor.value.detach().to(device, dtype, /*non_blocking=*/false, /*copy=*/true);
  };
  AdapterState copy = state;
  for (SiteState& site : copy.sites) {
    for (NamedTensor& tensor : site.tensors) clone(tensor);
  }
  for (NamedTensor& tensor : copy.dense) clone(tensor);
  return copy;
}

bool SameLayout(const AdapterState& a, const AdapterState& b) {
  if (a.sites.size() != b.sites.size() || !SameTensors(a.dense, b.dense)) return false;
  for (size_t i = 0; i < a.sites.size(); ++i) {
    if (a.sites[i].site != b.sites[i].site) return false;
    if (!SameTensors(a.sites[i].tensors, b.sites[i].tensors)) return false;
  }
  return true;
}

}  // namespace weft
