#include "common/adapters/adapter_state.h"

#include <unordered_map>

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
  std::vector<SiteState> visited = sites;
  MapTensors(visited, [&](const NamedTensor& tensor) {
    total += tensor.value.numel();
    return tensor.value;
  });
  return total;
}

void MapTensors(std::vector<SiteState>& sites,
                const std::function<at::Tensor(const NamedTensor&)>& change) {
  std::unordered_map<const c10::TensorImpl*, at::Tensor> changed;  // looked up only
  std::vector<at::Tensor> old;  // kept, so that no new tensor takes an old one's place in memory
  for (SiteState& site : sites) {
    for (NamedTensor& tensor : site.tensors) {
      const auto [entry, is_new] = changed.try_emplace(tensor.value.unsafeGetTensorImpl());
      if (is_new) {
        old.push_back(tensor.value);
        entry->second = change(tensor);
      }
      tensor.value = entry->second;
    }
  }
}

AdapterState CloneTo(const AdapterState& state, at::Device device, at::ScalarType dtype) {
  const auto clone = [&](const NamedTensor& tensor) {
    return tensor.value.detach().to(device, dtype, /*non_blocking=*/false, /*copy=*/true);
  };
  AdapterState copy = state;
  MapTensors(copy.sites, clone);
  for (NamedTensor& tensor : copy.dense) tensor.value = clone(tensor);
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
