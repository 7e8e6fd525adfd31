#include "common/adapters/lora.h"

#include <algorithm>

#include "common/adapters/factor_init.h"
#include "common/adapters/match.h"
#include "common/adapters/method_spec.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

constexpr std::string_view kTrain = "train";
constexpr std::string_view kPrivate = "private";
constexpr std::string_view kOwn = "own ";  // before its rank: the part that stays at a site
constexpr std::string_view kPrivateA = "private.A";
constexpr std::string_view kPrivateB = "private.B";

// Rank of the pair that stays at a site, and whether the spec is that pair's alone.
struct Private {
  int64_t rank = 0;
  bool alone = false;
};

Result<Private> PrivateOf(const AdapterSpec& spec) {
  const std::string* const text = FindOption(spec, Str("lora.", kPrivate));
  if (text == nullptr) return Private{};
  AdapterSpec plain = spec;
  const bool alone = text->starts_with(kOwn);
  if (alone) SetOption(plain, kPrivate, text->substr(kOwn.size()));
  WEFT_TRY_ASSIGN(const int64_t rank, IntegerOption(plain, kPrivate, 0, 0, limits::kRankMax));
  return Private{rank, alone};
}

Private PrivateOrDie(const AdapterSpec& spec) {
  const Result<Private> own = PrivateOf(spec);
  WEFT_CHECK(own.ok(), own.status());
  return *own;
}

int64_t PrivateRank(int64_t rank, const LinearSite& site) {
  return std::min({rank, site.in, site.out});
}

class Lora final : public Adapter {
 public:
  std::string_view name() const override { return "lora"; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckMethodSpec(spec, {kTrain, "slots", kPrivate}));
    WEFT_TRY(PrivateOf(spec).status());
    return WordOption(spec, kTrain, {"both", "A", "B"}).status();
  }

  Result<std::vector<SiteLayout>> Layout(const AdapterSpec& spec,
                                         std::span<const LinearSite> sites) const override {
    WEFT_TRY_ASSIGN(const Private own, PrivateOf(spec));
    std::vector<SiteLayout> layout;
    layout.reserve(sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
      if (own.alone) {
        const int64_t rank = PrivateRank(own.rank, sites[i]);
        layout.push_back({{std::string(kPrivateA), {rank, sites[i].in}, i},
                          {std::string(kPrivateB), {sites[i].out, rank}, i}});
        continue;
      }
      const int64_t rank = SiteRank(spec, sites[i]);
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
    const Private own = PrivateOrDie(spec);
    const std::string A(own.alone ? kPrivateA : "A");
    const std::string B(own.alone ? kPrivateB : "B");
    for (const LinearSite& site : sites) {
      const int64_t rank = own.alone ? PrivateRank(own.rank, site) : RankFor(spec, site.path);
      state.sites.push_back({site,
                             {{A, RandomFactorA(rank, site.in, seed, site.path, A)},
                              {B, at::zeros({site.out, rank}, at::kFloat)}}});
    }
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec& spec) const override {
    const std::string trained = TrainedFactor(spec);
    std::vector<std::string> names =
        trained == "both" ? std::vector<std::string>{"A", "B"} : std::vector{trained};
    if (PrivateOrDie(spec).rank > 0) names.insert(names.end(), {"private.A", "private.B"});
    return names;
  }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    const SiteState& site = state.sites.at(site_index);
    const double scaling = ScalingFor(state.spec, site.site.path);
    at::Tensor A_RI = site.tensors.at(0).value;
    at::Tensor B_OR = site.tensors.at(1).value;
    if (site.tensors.size() == 4) {  // both parts of a client's adapter
      A_RI = at::cat({A_RI, site.tensors[2].value}, 0);
      B_OR = at::cat({B_OR, site.tensors[3].value}, 1);
    }
    return {A_RI, scaling == 1.0 ? B_OR : B_OR * scaling};
  }

  // At the shared part's scaling, so that the parts' updates add up.
  std::optional<AdapterSpec> KeptSpec(const AdapterSpec& spec) const override {
    const Private own = PrivateOrDie(spec);
    if (own.rank == 0 || own.alone) return std::nullopt;
    AdapterSpec kept = spec;
    std::erase_if(kept.options, [](const auto& option) { return option.first != "lora.private"; });
    SetOption(kept, kPrivate, Str(kOwn, own.rank));
    return kept;
  }

  Result<AdapterState> Join(const Parts& parts) const override {
    if (parts.kept.sites.size() != parts.shipped.sites.size()) {
      return InvalidArgument(Str("[lora] the private part has ", parts.kept.sites.size(),
                                 " sites, the shared one ", parts.shipped.sites.size()));
    }
    AdapterState joined = parts.shipped;
    for (size_t i = 0; i < joined.sites.size(); ++i) {
      const SiteState& own = parts.kept.sites[i];
      if (own.site != joined.sites[i].site || own.tensors.size() != 2 ||
          own.tensors[0].name != kPrivateA || joined.sites[i].tensors.size() != 2) {
        return InvalidArgument(Str("[lora] site ", i,
                                   ": wanted the shared and the private pair of ",
                                   joined.sites[i].site.path));
      }
      joined.sites[i].tensors.insert(joined.sites[i].tensors.end(), own.tensors.begin(),
                                     own.tensors.end());
    }
    return joined;
  }

  Result<Parts> Split(const AdapterState& joined, const AdapterSpec& spec) const override {
    const std::optional<AdapterSpec> kept = KeptSpec(spec);
    if (!kept) return InvalidArgument("[lora] the spec has no private part");
    Parts parts{joined, joined};
    parts.shipped.spec = spec;
    parts.kept.spec = *kept;
    parts.kept.dense.clear();
    for (size_t i = 0; i < joined.sites.size(); ++i) {
      const std::vector<NamedTensor>& all = joined.sites[i].tensors;
      if (all.size() != 4) {
        return InvalidArgument(Str("[lora] site ", joined.sites[i].site.path, " has ", all.size(),
                                   " tensors, wanted the shared and the private pair"));
      }
      parts.shipped.sites[i].tensors.assign(all.begin(), all.begin() + 2);
      parts.kept.sites[i].tensors.assign(all.begin() + 2, all.end());
    }
    return parts;
  }

  bool projects() const override { return true; }

  Result<AdapterState> Project(const AdapterSpec& spec,
                               const LowRankAdapter& factors) const override {
    WEFT_TRY(CheckSpec(spec));
    const at::NoGradGuard no_grad;
    AdapterState state;
    state.spec = spec;
    for (const LowRankSite& site : factors) {
      const int64_t rank = RankFor(spec, site.site.path);
      const at::Tensor& A_RI = site.factors.A_RI;
      const at::Tensor& B_OR = site.factors.B_OR;
      if (A_RI.size(0) > rank) {
        return FailedPrecondition(Str("[adapter] ", site.site.path, ": factors of rank ",
                                      A_RI.size(0), " do not fit a LoRA of rank ", rank));
      }
      at::Tensor A = at::zeros({rank, site.site.in}, A_RI.options().dtype(at::kFloat));
      at::Tensor B = at::zeros({site.site.out, rank}, B_OR.options().dtype(at::kFloat));
      A.narrow(0, 0, A_RI.size(0)).copy_(A_RI);
      B.narrow(1, 0, A_RI.size(0)).copy_(B_OR);
      const double scaling = ScalingFor(spec, site.site.path);
      if (scaling != 1.0) B.div_(scaling);
      state.sites.push_back({site.site, {{"A", std::move(A)}, {"B", std::move(B)}}});
    }
    return state;
  }
};

}  // namespace

const Adapter* LoraAdapter() {
  static const Lora method;
  return &method;
}

std::string TrainedFactor(const AdapterSpec& lora) {
  const std::string* const option = FindOption(lora, Str("lora.", kTrain));
  return option == nullptr ? "both" : *option;
}

}  // namespace weft
