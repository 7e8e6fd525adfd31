#pragma once
// RankPlan: the rank a site offers when its settings say "auto": the largest power of two that
// memory and link allow. Estimates on the safe side, said before the client joins. Pure; knows no
// torch.

#include <cstdint>
#include <span>
#include <string>

#include "common/plan/adapter_spec.h"

namespace weft {

struct RankPlanInput {
  std::span<const LinearSite> sites;  // the layers that may carry the adapter
  uint64_t base_bytes = 0;            // of the weights, which have to stay in memory
  uint64_t free_bytes = 0;            // on the device before anything is loaded; 0: not known
  double link_mbps = 0;               // towards the aggregator; 0: not known, no bound
  uint64_t batch_tokens = 2048;       // whose activations are held at once
  double upload_s = 60;               // longest time an update should be on its way
};

struct RankPlan {
  int64_t rank = 1;
  uint64_t bytes_per_rank = 0;    // parameters, gradients, two moments
  uint64_t activation_bytes = 0;  // held for the backward pass
  uint64_t upload_bytes = 0;      // of one update at this rank, float32
  int64_t rank_by_memory = 0;     // 0: no bound known
  int64_t rank_by_link = 0;       // ditto
  std::string text;               // the plan in a sentence
};

inline constexpr int64_t kAutoRankMax = 64;  // more rarely helps and costs every site's link

[[nodiscard]] RankPlan PlanRank(const RankPlanInput& input);

/// Size of an update's factors at a rank, float32: Σ min(r, in, out) · (in + out) · 4 bytes.
[[nodiscard]] uint64_t FactorBytes(std::span<const LinearSite> sites, int64_t rank);

/// Megabits per second of this machine's fastest network card that is up; 0 where the server is on
/// this machine or nothing can be read.
[[nodiscard]] double LinkSpeedMbps(const std::string& server_address);

}  // namespace weft
