#pragma once
// A round of a strategy in memory: clients with float64 factors of their own, a global state, and
// the products that tests compare (factors are free up to a gauge).

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "aggregator/strategies/slots.h"
#include "aggregator/strategies/strategy.h"
#include "common/adapters/adapter.h"
#include "common/base/limits.h"
#include "common/base/random.h"

namespace weft::testing {

struct MemoryClient {
  ClientPlan plan;
  double weight = 1;
  std::vector<LowRank> factors;  // as a LoRA adapter holds them, not scaled
  double update_norm = 1;        // as admission would have measured it
  std::shared_ptr<const GlobalState> older_global = nullptr;  // of one that comes late
  double discount = 1;
};

class MemoryUpdates final : public UpdateSource {
 public:
  explicit MemoryUpdates(std::vector<MemoryClient> clients) : clients_(std::move(clients)) {
    double sum = 0;
    for (const MemoryClient& client : clients_) sum += client.weight;
    for (MemoryClient& client : clients_) client.weight /= sum;
  }
  [[nodiscard]] size_t size() const override { return clients_.size(); }
  [[nodiscard]] const ClientPlan& plan(size_t k) const override { return clients_[k].plan; }
  [[nodiscard]] double weight(size_t k) const override { return clients_[k].weight; }
  [[nodiscard]] double update_norm(size_t k) const override { return clients_[k].update_norm; }
  [[nodiscard]] const GlobalState* older_global(size_t k) const override {
    return clients_[k].older_global.get();
  }
  [[nodiscard]] double discount(size_t k) const override { return clients_[k].discount; }
  [[nodiscard]] Result<LowRank> Factors(size_t k, size_t site) const override {
    const LowRank& raw = clients_[k].factors[site];
    const double scaling = ScalingFor(clients_[k].plan.adapter, Path(site));
    return LowRank{raw.A_RI.to(at::kDouble), raw.B_OR.to(at::kDouble) * scaling};
  }
  static std::string Path(size_t site) { return "layers." + std::to_string(site) + ".q_proj"; }

 private:
  std::vector<MemoryClient> clients_;
};

inline at::Tensor RandomMatrix(int64_t rows, int64_t columns, std::string_view label,
                               uint64_t seed = 1) {
  RandomStream stream = RandomStream::Derive(seed, {"strategy-world", label});
  at::Tensor matrix = at::empty({rows, columns}, at::kDouble);
  for (int64_t i = 0; i < matrix.numel(); ++i) {
    matrix.mutable_data_ptr<double>()[i] = stream.Normal();
  }
  return matrix;
}

/// A wide layer and a tall one.
inline const std::vector<LinearSite>& TwoLayers() {
  static const auto* layers = new std::vector<LinearSite>{{MemoryUpdates::Path(0), 20, 12},
                                                          {MemoryUpdates::Path(1), 9, 30}};
  return *layers;
}

/// Every rule that merges products site by site; those that merge whole adapters of a method know
/// nothing of LoRA's (own_coordinates_test.cc).
inline std::vector<const Strategy*> ProductStrategies() {
  std::vector<const Strategy*> found;
  for (const Strategy* strategy : StrategyRegistry()) {
    if (!strategy->traits().own_coordinates) found.push_back(strategy);
  }
  return found;
}

inline AdapterSpec LoraSpec(int64_t rank, double alpha) {
  AdapterSpec spec;
  spec.rank = rank;
  spec.alpha = alpha;
  spec.target_modules = {"q_proj"};
  return spec;
}

/// What an honest client says of this payload in round 1.
inline UpdateHeader HonestHeader(const ClientPlan& plan, const Blob& payload) {
  UpdateHeader header;
  header.round = RoundId{1};
  header.client = plan.client;
  header.spec = plan.adapter;
  header.codec = "float32";
  header.num_examples = 50;
  header.label_tokens = 500;
  header.train_loss = 2.5;
  header.payload_bytes = payload.size();
  return header;
}

/// A client of this rank on these sites with random factors.
inline MemoryClient RandomClient(const std::string& name, int64_t rank, double alpha,
                                 const std::vector<LinearSite>& sites, uint64_t seed = 1) {
  MemoryClient client{{ClientId{name}, LoraSpec(rank, alpha)}, 1, {}};
  for (const LinearSite& site : sites) {
    const int64_t r = SiteRank(client.plan.adapter, site);
    client.factors.push_back({RandomMatrix(r, site.in, name + site.path + "A", seed),
                              RandomMatrix(site.out, r, name + site.path + "B", seed)});
  }
  return client;
}

/// What a client returns that trains nothing.
inline Result<MemoryClient> IdleClient(const Strategy& strategy, const GlobalState& global,
                                       const ClientPlan& plan, double weight) {
  WEFT_TRY_ASSIGN(const AdapterBundle bundle, strategy.Cut(global, plan));
  MemoryClient client{plan, weight, {}};
  for (size_t i = 0; i < global.adapter.sites.size(); ++i) {
    if (bundle.adapter) {
      const SiteState& site = bundle.adapter->sites[i];
      client.factors.push_back({site.Get("A"), site.Get("B")});
      continue;
    }
    const LinearSite& layer = global.adapter.sites[i].site;  // it starts afresh, with B = 0
    const int64_t rank = SiteRank(plan.adapter, layer);
    client.factors.push_back(
        {RandomMatrix(rank, layer.in, layer.path), at::zeros({layer.out, rank}, at::kDouble)});
  }
  return client;
}

/// The plan that a client of this rank gets for a round.
inline ClientPlan PlanFor(const Strategy& strategy, const StrategySettings& settings,
                          const std::string& name, int64_t rank, double alpha, uint64_t round) {
  return {ClientId{name},
          strategy.ForRound(settings, limits::kRankMax, LoraSpec(rank, alpha), 3, round)};
}

/// What a client returns whose factors are random after training, those that it may train.
inline MemoryClient TrainedClient(const Strategy& strategy, const GlobalState& global,
                                  const ClientPlan& plan, uint64_t seed = 1) {
  Result<MemoryClient> client = IdleClient(strategy, global, plan, 1);
  WEFT_CHECK(client.ok(), client.status());
  const std::vector<std::string> trained = (*FindAdapter("lora"))->Trainable(plan.adapter);
  for (size_t i = 0; i < client->factors.size(); ++i) {
    for (const std::string& name : trained) {
      at::Tensor& factor = name == "A" ? client->factors[i].A_RI : client->factors[i].B_OR;
      const std::string label = plan.client.name + MemoryUpdates::Path(i) + name;
      factor = RandomMatrix(factor.size(0), factor.size(1), label, seed);
    }
  }
  return std::move(client).value();
}

inline at::Tensor Product(const LowRank& factors) {
  return at::matmul(factors.B_OR.to(at::kDouble), factors.A_RI.to(at::kDouble));
}
inline at::Tensor Product(const SiteState& site) {
  return Product(LowRank{site.Get("A"), site.Get("B")});
}
inline at::Tensor Product(const AdapterState& state, size_t site) {
  return Product(state.sites[site]) * ScalingFor(state.spec, state.sites[site].site.path);
}

/// ‖got − wanted‖_F / ‖wanted‖_F.
inline double Relative(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).norm() / wanted.norm()).item<double>();
}
inline double MaxAbs(const at::Tensor& difference) {
  return difference.numel() == 0 ? 0 : difference.abs().max().item<double>();
}

}  // namespace weft::testing
