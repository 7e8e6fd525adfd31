#include "aggregator/strategies/slots.h"

#include <algorithm>
#include <map>

#include "common/adapters/adapter.h"
#include "common/base/str.h"

// Shape legend: O out, I in, R a client's rank, G the global rank.

namespace weft {
namespace {

// Rows of A for slots that have none: dead ones, and those beyond the global rank.
at::Tensor WithUsableRows(const at::Tensor& A_GI, const at::Tensor& B_OG, int64_t rank,
                          const std::string& path) {
  const at::Tensor dead = A_GI.abs().amax(1).add_(B_OG.abs().amax(0)).eq(0).to(at::kCPU);
  const bool* const is_dead = dead.const_data_ptr<bool>();
  std::vector<int64_t> alive;
  std::vector<int64_t> missing;
  for (int64_t j = 0; j < rank; ++j) {
    const bool lacks = j >= A_GI.size(0) || is_dead[j];
    (lacks ? missing : alive).push_back(j);
  }
  if (missing.empty()) return A_GI;
  const auto index = [&](const std::vector<int64_t>& rows) {
    return at::tensor(rows, at::kLong).to(A_GI.device());
  };
  at::Tensor A_RI = at::zeros({rank, A_GI.size(1)}, A_GI.options());
  const at::Tensor living = A_GI.index_select(0, index(alive));
  A_RI.index_copy_(0, index(alive), living);
  const at::Tensor fresh = CompletingRows(living, static_cast<int64_t>(missing.size()), path);
  A_RI.index_copy_(0, index(missing), fresh.to(A_GI.scalar_type()));
  return A_RI;
}

}  // namespace

AdapterSpec UnitSpec(const AdapterSpec& init, std::span<const SiteState> sites) {
  std::map<int64_t, size_t> counts;
  for (const SiteState& site : sites) ++counts[site.Get("A").size(0)];
  AdapterSpec spec = init;
  spec.method = "lora";
  spec.rslora = false;
  spec.dropout = 0;
  spec.options.clear();
  spec.rank_pattern.clear();
  spec.alpha_pattern.clear();
  spec.rank = 0;
  for (const auto& [rank, count] : counts) {
    if (spec.rank == 0 || count > counts[spec.rank]) spec.rank = rank;
  }
  spec.alpha = static_cast<double>(spec.rank);
  for (const SiteState& site : sites) {
    const int64_t rank = site.Get("A").size(0);
    if (rank == spec.rank) continue;
    spec.rank_pattern.emplace_back(site.site.path, rank);
    spec.alpha_pattern.emplace_back(site.site.path, static_cast<double>(rank));
  }
  return spec;
}

Result<GlobalState> InitSlots(std::string_view strategy, const AdapterSpec& spec,
                              std::span<const LinearSite> sites, uint64_t seed) {
  GlobalState global;
  global.strategy = strategy;
  global.init = spec;
  AdapterSpec plain = spec;
  plain.method = "lora";
  plain.options.clear();
  static_cast<void>(CapRanks(plain, sites));  // the caller has told the user which are capped
  WEFT_TRY_ASSIGN(const Adapter* lora, FindAdapter(plain.method));
  WEFT_TRY_ASSIGN(global.adapter, lora->Init(plain, sites, seed));
  global.adapter.spec = UnitSpec(spec, global.adapter.sites);
  return global;
}

Result<SiteState> CutSite(const SiteState& global, const AdapterSpec& client) {
  const at::Tensor& A_GI = global.Get("A");
  const at::Tensor& B_OG = global.Get("B");
  const int64_t rank = SiteRank(client, global.site);
  const int64_t slots = std::min(rank, A_GI.size(0));
  const at::Tensor A_RI =
      WithUsableRows(A_GI.narrow(0, 0, slots), B_OG.narrow(1, 0, slots), rank, global.site.path);
  at::Tensor B_OR = at::zeros({B_OG.size(0), rank}, B_OG.options().dtype(at::kDouble));
  B_OR.narrow(1, 0, slots).copy_(B_OG.narrow(1, 0, slots));
  if (client.method == "lora") {
    const double scaling = ScalingFor(client, global.site.path);
    return SiteState{global.site,
                     {{"A", A_RI.contiguous()}, {"B", (B_OR / scaling).to(B_OG.scalar_type())}}};
  }
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(client.method));
  WEFT_TRY_ASSIGN(AdapterState projected,
                  method->Project(client, {{global.site, {A_RI, B_OR.to(B_OG.scalar_type())}}}));
  return std::move(projected.sites.at(0));
}

Result<AdapterBundle> CutSlots(const GlobalState& global, const ClientPlan& client) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(client.adapter.method));
  if (!method->projects()) return AdapterBundle{std::nullopt, global.adapter};
  AdapterState state;
  state.spec = client.adapter;
  state.sites.reserve(global.adapter.sites.size());
  for (const SiteState& site : global.adapter.sites) {
    Result<SiteState> cut = CutSite(site, client.adapter);
    if (!cut.ok())
      return cut.status().Within(Str("client ", client.client, " site ", site.site.path));
    state.sites.push_back(std::move(cut).value());
  }
  return AdapterBundle{std::move(state), std::nullopt};
}

Result<LowRank> LowerSite(const AdapterSpec& spec, const SiteState& site) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  AdapterState alone;
  alone.spec = spec;
  SiteState& doubled = alone.sites.emplace_back(SiteState{site.site, {}});
  for (const NamedTensor& tensor : site.tensors) {
    doubled.tensors.push_back({tensor.name, tensor.value.to(at::kDouble)});
  }
  return method->Effective(alone, 0);
}

Result<std::optional<LowRank>> SentSlots(const GlobalState& global, size_t site,
                                         const ClientPlan& client) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(client.adapter.method));
  if (!method->projects()) return std::optional<LowRank>();
  WEFT_TRY_ASSIGN(const SiteState cut, CutSite(global.adapter.sites[site], client.adapter));
  WEFT_TRY_ASSIGN(LowRank factors, LowerSite(client.adapter, cut));
  return std::optional<LowRank>(std::move(factors));
}

Result<SentMean> MeanOfSent(const MergeInput& input, size_t site) {
  const SiteState& global = input.global.adapter.sites[site];
  const at::Tensor& B_OG = global.Get("B");
  SentMean mean{at::zeros(B_OG.sizes(), B_OG.options().dtype(at::kDouble)),
                LowRankSum(global.site.out, global.site.in)};
  std::optional<LowRank> sent;
  const AdapterSpec* sent_as = nullptr;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const ClientPlan& client = input.updates.plan(k);
    if (sent_as == nullptr || *sent_as != client.adapter) {
      WEFT_TRY_ASSIGN(sent, SentSlots(input.global, site, client));
      sent_as = &client.adapter;
    }
    if (!sent) continue;
    if (client.adapter.method == "lora") {
      const int64_t slots = std::min(sent->B_OR.size(1), B_OG.size(1));
      mean.B_OG.narrow(1, 0, slots).add_(sent->B_OR.narrow(1, 0, slots), input.updates.weight(k));
    } else {
      mean.others.Add(*sent, input.updates.weight(k));
    }
  }
  return mean;
}

LowRankSum Untrained(const SiteState& global, const SentMean& sent) {
  LowRankSum sum(global.site.out, global.site.in);
  // One block, not two: subtracting where the rows of A are shared keeps the stack short.
  const at::Tensor B_OG = global.Get("B").to(at::kDouble) - sent.B_OG;
  if (B_OG.any().item<bool>()) sum.Add({global.Get("A"), B_OG});
  sum.Add(sent.others, -1);
  return sum;
}

Result<LowRankSum> IdealMean(const MergeInput& input, size_t site) {
  const LinearSite& layer = input.global.adapter.sites[site].site;
  WEFT_TRY_ASSIGN(const SiteStack stack, input.updates.Stack(site));
  LowRankSum ideal(layer.out, layer.in);
  ideal.Add(stack.factors);
  return ideal;
}

}  // namespace weft
