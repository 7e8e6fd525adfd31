#pragma once
// AdapterState: an adapter's tensors in a fixed order. LowRank: what every method lowers to.
//
// Shape legend: R rank, I in, O out.

#include <functional>
#include <string>
#include <vector>

#include "common/plan/adapter_spec.h"
#include "common/tensor/torch.h"

namespace weft {

struct NamedTensor {
  std::string name;
  at::Tensor value;
};

/// One adapted layer's tensors, in the order its method declares. LoRA: "A" [r×in], "B" [out×r],
/// unscaled as PEFT stores them. Layers that share a tensor (MSPLoRA's tiers) hold the same handle.
struct SiteState {
  LinearSite site;
  std::vector<NamedTensor> tensors;

  /// The tensor of that name; a name the method did not declare is a bug (checked).
  [[nodiscard]] const at::Tensor& Get(std::string_view name) const;
  [[nodiscard]] at::Tensor& Get(std::string_view name);
};

/// Ordered (never a map), so hashes and floating-point sums depend on nothing else. Copying copies
/// handles, not tensors.
struct AdapterState {
  AdapterSpec spec;
  std::vector<SiteState> sites;    // in the base model's order of layers
  std::vector<NamedTensor> dense;  // whole trained modules

  /// Each tensor counts once, however many sites share it.
  [[nodiscard]] int64_t NumParameters() const;
};

/// Puts in place of every tensor of the sites what `change` makes of it. Called once for each
/// tensor, in order: sites that shared it share the new one.
void MapTensors(std::vector<SiteState>& sites,
                const std::function<at::Tensor(const NamedTensor& tensor)>& change);

/// ΔW[out×in] = B[out×r]·A[r×in] at scale 1: the method's scaling (alpha/r) is absorbed into B.
struct LowRank {
  at::Tensor A_RI;
  at::Tensor B_OR;
};

/// A whole adapter in lowered form; what stacking, exact-svd, distances and PEFT export stand on.
struct LowRankSite {
  LinearSite site;
  LowRank factors;
};
using LowRankAdapter = std::vector<LowRankSite>;

/// One client's adapter and its weight p.
struct AdapterUpdate {
  const AdapterState* state = nullptr;
  double weight = 1;
};

/// Deep copies on the given device and dtype; leaves the spec as it is.
[[nodiscard]] AdapterState CloneTo(const AdapterState& state, at::Device device,
                                   at::ScalarType dtype);

/// Same sites, tensor names and shapes, in the same order?
[[nodiscard]] bool SameLayout(const AdapterState& a, const AdapterState& b);

}  // namespace weft
