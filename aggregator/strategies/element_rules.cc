// Robust rules that look at single elements: of ΔW, which is formed a few rows at a time, or of a
// factor where the other is the same for all.
//
// Shape legend: K clients, O out, I in, b rows of a block.

#include <algorithm>
#include <cmath>

#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/slots.h"

namespace weft {
namespace {

constexpr int64_t kBlockElements = int64_t{1} << 22;  // of all clients together: 32 MB

at::Tensor Sorted(const at::Tensor& values_K) { return std::get<0>(at::sort(values_K, 0, false)); }

// The share of the client's change that counts, and its factors less what it was sent.
struct SeenChange {
  LowRank factors;
  double share;
};

Result<std::vector<SeenChange>> SeenChanges(const MergeInput& input, size_t site, bool fresh) {
  std::vector<SeenChange> changes;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const double share = input.updates.weight(k);
    if (share == 0) continue;
    WEFT_TRY_ASSIGN(LowRank own, input.updates.Factors(k, site));
    if (!fresh) {
      WEFT_TRY_ASSIGN(const std::optional<LowRank> sent,
                      SentSlots(input.StartOf(k), site, input.updates.plan(k)));
      if (sent) own = Difference(own, *sent);
    }
    changes.push_back({std::move(own), share});
  }
  return changes;
}

}  // namespace

at::Tensor ElementMedian(const at::Tensor& values_K) {
  const int64_t count = values_K.size(0);
  const at::Tensor sorted = Sorted(values_K);
  return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

at::Tensor TrimmedMean(const at::Tensor& values_K, double trim) {
  const int64_t count = values_K.size(0);
  const auto cut = static_cast<int64_t>(std::floor(trim * static_cast<double>(count)));
  if (count <= 2 * cut) return ElementMedian(values_K);
  return Sorted(values_K).narrow(0, cut, count - 2 * cut).mean(0);
}

at::Tensor MeanAroundMedian(const at::Tensor& values_K, int64_t nearest) {
  nearest = std::clamp<int64_t>(nearest, 1, values_K.size(0));
  const at::Tensor distance = (values_K - ElementMedian(values_K)).abs();
  const at::Tensor order =
      std::get<1>(at::sort(distance, /*stable=*/true, 0, false)).narrow(0, 0, nearest);
  return values_K.gather(0, order).mean(0);
}

at::Tensor CombineElements(const RobustSettings& settings, const at::Tensor& values_K) {
  if (settings.rule == "median") return ElementMedian(values_K);
  if (settings.rule == "trimmed-mean") return TrimmedMean(values_K, settings.trim);
  return MeanAroundMedian(values_K, values_K.size(0) - 2 * settings.byzantine);
}

Result<at::Tensor> ElementwiseChange(const MergeInput& input, size_t site, bool fresh) {
  const LinearSite& layer = input.global.adapter.sites[site].site;
  WEFT_TRY_ASSIGN(const std::vector<SeenChange> changes, SeenChanges(input, site, fresh));
  at::Tensor change_OI = at::zeros({layer.out, layer.in}, at::kDouble);
  if (changes.empty()) return change_OI;
  const auto clients = static_cast<int64_t>(changes.size());
  const int64_t block = std::max<int64_t>(1, kBlockElements / (clients * layer.in));
  for (int64_t first = 0; first < layer.out; first += block) {
    const int64_t rows = std::min(block, layer.out - first);
    at::Tensor values_KbI = at::empty({clients, rows, layer.in}, at::kDouble);
    for (int64_t k = 0; k < clients; ++k) {
      const SeenChange& change = changes[static_cast<size_t>(k)];
      at::Tensor place = values_KbI[k];
      at::matmul_out(place, change.factors.B_OR.narrow(0, first, rows), change.factors.A_RI);
      if (change.share != 1) place.mul_(change.share);
    }
    change_OI.narrow(0, first, rows).copy_(CombineElements(input.settings.robust, values_KbI));
  }
  return change_OI;
}

}  // namespace weft
