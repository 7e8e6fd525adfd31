#include "aggregator/strategies/slots.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "common/adapters/adapter.h"
#include "common/adapters/lora.h"
#include "common/adapters/match.h"
#include "common/adapters/method_spec.h"
#include "common/base/random.h"
#include "common/base/str.h"

// Shape legend: O out, I in, R a client's rank, G the global rank.

namespace weft {
namespace {

constexpr double kRounding = 1e-12;
constexpr char kDrawn[] = "draw ";  // and the round's key

at::Tensor Index(const std::vector<int64_t>& rows, at::Device device) {
  return at::tensor(rows, at::kLong).to(device);
}

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
  at::Tensor A_RI = at::zeros({rank, A_GI.size(1)}, A_GI.options());
  const at::Tensor living = A_GI.index_select(0, Index(alive, A_GI.device()));
  A_RI.index_copy_(0, Index(alive, A_GI.device()), living);
  const at::Tensor fresh = CompletingRows(living, static_cast<int64_t>(missing.size()), path);
  A_RI.index_copy_(0, Index(missing, A_GI.device()), fresh.to(A_GI.scalar_type()));
  return A_RI;
}

// The slots that lie frozen beside what the client is given: those beyond what any client trains,
// and where its spec says so those that only this one does not train. Nothing if there are none.
std::optional<AdapterState> FrozenSlots(const GlobalState& global, const ClientPlan& client) {
  const bool tail = FindOption(client.adapter, kSlotsOption) != nullptr;
  AdapterState frozen;
  bool any = false;
  for (size_t i = 0; i < global.adapter.sites.size(); ++i) {
    const SiteState& old = global.adapter.sites[i];
    const int64_t trained = TrainedSlots(global, i);
    const std::vector<int64_t> given = SlotsOf(client, old.site, trained);
    std::vector<int64_t> others;
    for (int64_t j = tail ? 0 : trained; j < old.Get("A").size(0); ++j) {
      if (!std::binary_search(given.begin(), given.end(), j)) others.push_back(j);
    }
    any = any || !others.empty();
    const at::Tensor& A_GI = old.Get("A");
    const at::Tensor index = Index(others, A_GI.device());
    at::Tensor A = A_GI.index_select(0, index);
    at::Tensor B = old.Get("B").index_select(1, index);
    if (others.empty()) {  // an adapter has at least one slot a site
      A = at::zeros({1, old.site.in}, A_GI.options());
      B = at::zeros({old.site.out, 1}, A_GI.options());
    }
    frozen.sites.push_back({old.site, {{"A", A.contiguous()}, {"B", B.contiguous()}}});
  }
  if (!any) return std::nullopt;
  frozen.spec = UnitSpec(global.init, frozen.sites);
  return frozen;
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

AdapterSpec SlotsForRound(const SlotRule& rule, int64_t global_rank, const AdapterSpec& spec,
                          uint64_t seed, uint64_t round) {
  AdapterSpec own = spec;
  if (spec.method != "lora") return own;
  if (rule.draws && spec.rank < global_rank) {
    const uint64_t key = RandomStream::Derive(seed, {"slots", std::to_string(round)}).NextU64();
    SetOption(own, "slots", Str(kDrawn, key));
  } else if (rule.tail_on_client) {
    SetOption(own, "slots", "top");
  }
  return own;
}

bool HasDrawnSlots(const AdapterSpec& spec) {
  const std::string* const slots = FindOption(spec, kSlotsOption);
  return slots != nullptr && slots->starts_with(kDrawn);
}

int64_t TrainedSlots(const GlobalState& global, size_t site) {
  const SiteState& old = global.adapter.sites[site];
  return std::min(old.Get("A").size(0), SiteRank(global.init, old.site));
}

std::vector<int64_t> SlotsOf(const ClientPlan& client, const LinearSite& site, int64_t trained) {
  const int64_t count = std::min(SiteRank(client.adapter, site), trained);
  std::vector<int64_t> slots(static_cast<size_t>(trained));
  std::iota(slots.begin(), slots.end(), 0);
  if (HasDrawnSlots(client.adapter)) {
    const std::string& option = *FindOption(client.adapter, kSlotsOption);
    const uint64_t key = std::strtoull(option.c_str() + std::strlen(kDrawn), nullptr, 10);
    RandomStream stream = RandomStream::Derive(key, {client.client.name, site.path});
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      std::swap(slots[i], slots[i + stream.Below(slots.size() - i)]);
    }
  }
  slots.resize(static_cast<size_t>(count));
  std::sort(slots.begin(), slots.end());
  return slots;
}

Result<SiteState> CutSite(const GlobalState& global, size_t site, const ClientPlan& client) {
  const SiteState& old = global.adapter.sites[site];
  const AdapterSpec& spec = client.adapter;
  const at::Tensor& A_GI = old.Get("A");
  const at::Tensor& B_OG = old.Get("B");
  const int64_t rank = SiteRank(spec, old.site);
  const at::Tensor slots =
      Index(SlotsOf(client, old.site, TrainedSlots(global, site)), A_GI.device());
  const at::Tensor A_SI = A_GI.index_select(0, slots);
  const at::Tensor B_OS = B_OG.index_select(1, slots);
  const at::Tensor A_RI = WithUsableRows(A_SI, B_OS, rank, old.site.path);
  at::Tensor B_OR = at::zeros({B_OG.size(0), rank}, B_OG.options().dtype(at::kDouble));
  B_OR.narrow(1, 0, slots.size(0)).copy_(B_OS);
  if (spec.method == "lora") {
    const double scaling = ScalingFor(spec, old.site.path);
    return SiteState{old.site,
                     {{"A", A_RI.contiguous()}, {"B", (B_OR / scaling).to(B_OG.scalar_type())}}};
  }
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  WEFT_TRY_ASSIGN(AdapterState projected,
                  method->Project(spec, {{old.site, {A_RI, B_OR.to(B_OG.scalar_type())}}}));
  return std::move(projected.sites.at(0));
}

Result<AdapterBundle> CutSlots(const GlobalState& global, const ClientPlan& client) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(client.adapter.method));
  if (!method->projects()) return AdapterBundle{std::nullopt, global.adapter};
  AdapterBundle bundle;
  bundle.adapter.emplace();
  bundle.adapter->spec = client.adapter;
  bundle.adapter->sites.reserve(global.adapter.sites.size());
  for (size_t i = 0; i < global.adapter.sites.size(); ++i) {
    Result<SiteState> cut = CutSite(global, i, client);
    if (!cut.ok()) {
      return cut.status().Within(
          Str("client ", client.client, " site ", global.adapter.sites[i].site.path));
    }
    bundle.adapter->sites.push_back(std::move(cut).value());
  }
  bundle.frozen = FrozenSlots(global, client);
  return bundle;
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
  WEFT_TRY_ASSIGN(const SiteState cut, CutSite(global, site, client));
  WEFT_TRY_ASSIGN(LowRank factors, LowerSite(client.adapter, cut));
  return std::optional<LowRank>(std::move(factors));
}

bool SentAlike(const ClientPlan& a, const ClientPlan& b) {
  return a.adapter == b.adapter && a.asked == b.asked && !HasDrawnSlots(a.adapter);
}

Result<SentMean> MeanOfSent(const MergeInput& input, size_t site) {
  const SiteState& global = input.global.adapter.sites[site];
  const at::Tensor& B_OG = global.Get("B");
  const int64_t trained = TrainedSlots(input.global, site);
  SentMean mean{at::zeros(B_OG.sizes(), B_OG.options().dtype(at::kDouble)),
                LowRankSum(global.site.out, global.site.in)};
  std::optional<LowRank> sent;
  const ClientPlan* sent_to = nullptr;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const ClientPlan& client = input.updates.plan(k);
    if (sent_to == nullptr || !SentAlike(*sent_to, client)) {
      WEFT_TRY_ASSIGN(sent, SentSlots(input.StartOf(k), site, client));
      sent_to = &client;
    }
    if (!sent) continue;
    const bool of_this_version = input.updates.older_global(k) == nullptr;
    if (client.adapter.method == "lora" && of_this_version) {
      const std::vector<int64_t> slots = SlotsOf(client, global.site, trained);
      mean.B_OG.index_add_(1, Index(slots, B_OG.device()),
                           sent->B_OR.narrow(1, 0, static_cast<int64_t>(slots.size())),
                           input.updates.weight(k));
    } else {
      mean.others.Add(*sent, input.updates.weight(k));
    }
  }
  return mean;
}

LowRank UntrainedSlots(const SiteState& global, const SentMean& sent) {
  // One block, not two: subtracting where the rows of A are shared keeps the stack short.
  return {global.Get("A").to(at::kDouble), global.Get("B").to(at::kDouble) - sent.B_OG};
}

LowRankSum Untrained(const SiteState& global, const SentMean& sent) {
  LowRankSum sum(global.site.out, global.site.in);
  const LowRank slots = UntrainedSlots(global, sent);
  // Of a slot that all clients trained rounding alone is left, and it would cost a rank of the
  // stack.
  const at::Tensor left = slots.B_OR.abs().amax(0) > kRounding * global.Get("B").abs().amax(0);
  const at::Tensor kept = left.nonzero().squeeze(1);
  if (kept.size(0) > 0) {
    sum.Add({slots.A_RI.index_select(0, kept), slots.B_OR.index_select(1, kept)});
  }
  sum.Add(sent.others, -1);
  return sum;
}

}  // namespace weft
