#include "client/rank_plan.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "common/base/str.h"

namespace weft {
namespace {

constexpr double kMegabyte = 1 << 20;
constexpr uint64_t kFloatBytes = 4;
constexpr uint64_t kTrainingCopies = 4;  // parameter, gradient, AdamW's two moments
constexpr double kMemoryShare = 0.8;     // the rest is for buffers nobody has counted

int64_t PowerOfTwoAtMost(int64_t bound) {
  int64_t rank = 1;
  while (2 * rank <= bound) rank *= 2;
  return rank;
}

uint64_t SumOfSides(std::span<const LinearSite> sites) {
  uint64_t sum = 0;
  for (const LinearSite& site : sites) sum += static_cast<uint64_t>(site.in + site.out);
  return sum;
}

}  // namespace

uint64_t FactorBytes(std::span<const LinearSite> sites, int64_t rank) {
  uint64_t bytes = 0;
  for (const LinearSite& site : sites) {
    const auto own = static_cast<uint64_t>(std::min({rank, site.in, site.out}));
    bytes += own * static_cast<uint64_t>(site.in + site.out) * kFloatBytes;
  }
  return bytes;
}

RankPlan PlanRank(const RankPlanInput& input) {
  RankPlan plan;
  const uint64_t sides = SumOfSides(input.sites);
  plan.bytes_per_rank = sides * kFloatBytes * kTrainingCopies;
  plan.activation_bytes = sides * kFloatBytes * input.batch_tokens;
  int64_t bound = kAutoRankMax;
  std::string memory = "free memory not known";
  if (input.free_bytes > 0 && plan.bytes_per_rank > 0) {
    const double taken =
        static_cast<double>(input.base_bytes) + static_cast<double>(plan.activation_bytes);
    const double left = kMemoryShare * static_cast<double>(input.free_bytes) - taken;
    plan.rank_by_memory =
        std::max<int64_t>(1, static_cast<int64_t>(left / static_cast<double>(plan.bytes_per_rank)));
    bound = std::min(bound, plan.rank_by_memory);
    memory = Str(static_cast<double>(input.free_bytes) / kMegabyte, " MB free, base ",
                 static_cast<double>(input.base_bytes) / kMegabyte, " MB, activations about ",
                 static_cast<double>(plan.activation_bytes) / kMegabyte, " MB, ",
                 static_cast<double>(plan.bytes_per_rank) / kMegabyte, " MB a rank");
  }
  std::string link = "link speed not known";
  if (input.link_mbps > 0 && sides > 0) {
    const double bytes = input.link_mbps * 1e6 / 8 * input.upload_s;
    plan.rank_by_link = std::max<int64_t>(
        1, static_cast<int64_t>(bytes / static_cast<double>(sides * kFloatBytes)));
    bound = std::min(bound, plan.rank_by_link);
    link = Str("link ", input.link_mbps, " Mbit/s");
  }
  plan.rank = PowerOfTwoAtMost(bound);
  plan.upload_bytes = FactorBytes(input.sites, plan.rank);
  plan.text = Str("rank ", plan.rank, " planned (", memory, "; ", link, "; an update is ",
                  static_cast<double>(plan.upload_bytes) / kMegabyte, " MB)");
  return plan;
}

double LinkSpeedMbps(const std::string& server_address) {
  for (const char* local : {"tcp://127.", "tcp://localhost", "tcp://[::1]"}) {
    if (server_address.starts_with(local)) return 0;
  }
  double fastest = 0;
  std::error_code error;
  std::filesystem::directory_iterator card("/sys/class/net", error);
  for (; !error && card != std::filesystem::directory_iterator(); card.increment(error)) {
    std::ifstream state(card->path() / "operstate");
    std::ifstream speed(card->path() / "speed");
    std::string up;
    double mbps = 0;
    if (state >> up && up == "up" && speed >> mbps) fastest = std::max(fastest, mbps);
  }
  return fastest;
}

}  // namespace weft
