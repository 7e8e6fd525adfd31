#include "common/adapters/change.h"

#include <algorithm>

#include "common/adapters/factor_init.h"
#include "common/adapters/match.h"
#include "common/adapters/method_spec.h"
#include "common/base/limits.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

constexpr std::string_view kGlobalRank = "global-rank";
constexpr std::string_view kMembers = "members";
constexpr std::string_view kWeighting = "weighting";

int64_t RankAt(const AdapterSpec& spec, const LinearSite& site) {
  return std::min({spec.rank, site.in, site.out});
}

class Change final : public Adapter {
 public:
  std::string_view name() const override { return kChangeMethod; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckMethodSpec(spec, {kGlobalRank, kMembers, kWeighting}));
    return TermsOf(spec).status();
  }

  Result<std::vector<SiteLayout>> Layout(const AdapterSpec& spec,
                                         std::span<const LinearSite> sites) const override {
    std::vector<SiteLayout> layout;
    layout.reserve(sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
      const int64_t rank = RankAt(spec, sites[i]);
      WEFT_TRY(CheckRank(rank, sites[i].path));
      layout.push_back({{"A", {rank, sites[i].in}, i}, {"B", {sites[i].out, rank}, i}});
    }
    return layout;
  }

  Result<AdapterState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                            uint64_t seed) const override {
    WEFT_TRY(CheckSpec(spec));
    AdapterState state;
    state.spec = spec;
    for (const LinearSite& site : sites) {
      const int64_t rank = RankAt(spec, site);
      state.sites.push_back({site,
                             {{"A", RandomFactorA(rank, site.in, seed, site.path, "A")},
                              {"B", at::zeros({site.out, rank}, at::kFloat)}}});
    }
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec&) const override { return {"A", "B"}; }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    const SiteState& site = state.sites.at(site_index);
    return {site.tensors.at(0).value, site.tensors.at(1).value};
  }

  int64_t FactorRank(const AdapterSpec& spec, const LinearSite& site) const override {
    return RankAt(spec, site);
  }
};

}  // namespace

const Adapter* ChangeAdapter() {
  static const Change method;
  return &method;
}

AdapterSpec ChangeSpec(const AdapterSpec& global, int64_t rank, const std::string& weighting,
                       int64_t members) {
  AdapterSpec spec = ForMethod(global, kChangeMethod);
  spec.rank = rank;
  SetOption(spec, kGlobalRank, std::to_string(global.rank));
  SetOption(spec, kMembers, std::to_string(members));
  SetOption(spec, kWeighting, weighting);
  return spec;
}

Result<RelayTerms> TermsOf(const AdapterSpec& change) {
  constexpr auto kMembersMax = static_cast<int64_t>(limits::kPeersMax);
  RelayTerms terms;
  WEFT_TRY_ASSIGN(terms.global_rank, IntegerOption(change, kGlobalRank, 0, 0, limits::kRankMax));
  WEFT_TRY_ASSIGN(terms.members, IntegerOption(change, kMembers, 0, 0, kMembersMax));
  WEFT_TRY_ASSIGN(terms.weighting, WordOption(change, kWeighting, {"examples", "tokens"}));
  return terms;
}

Result<uint64_t> MembersOf(const AdapterSpec& spec) {
  if (spec.method != kChangeMethod) return uint64_t{1};
  WEFT_TRY_ASSIGN(const RelayTerms terms, TermsOf(spec));
  return static_cast<uint64_t>(std::max<int64_t>(terms.members, 1));
}

}  // namespace weft
