#include "common/adapters/msplora.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <tuple>
#include <unordered_map>

#include "common/adapters/factor_init.h"
#include "common/adapters/match.h"
#include "common/adapters/method_spec.h"
#include "common/adapters/msplora_merge.h"
#include "common/adapters/msplora_stages.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

constexpr int64_t kTiersStandard = 3;
constexpr int64_t kTiersMax = 16;
constexpr int64_t kGroupsStandard = 3;
constexpr int64_t kGroupsMax = 4096;
constexpr int64_t kLayersMax = limits::kSitesMax;  // a larger number in a path is a name
constexpr std::string_view kRanksOption = "msplora.ranks";

struct MspOptions {
  int64_t tiers = kTiersStandard;
  int64_t groups = kGroupsStandard;
  bool staged = false;
  std::string part;
  std::vector<int64_t> ranks;  // empty: by halves

  [[nodiscard]] bool Has(size_t tier) const {
    if (!ranks.empty() && ranks[tier] == 0) return false;
    const bool own = tier > 0 && tier + 1 == static_cast<size_t>(tiers);
    return part == "all" || (part == "own") == own;
  }
};

// The names of the tiers there are, by place; empty where there is none.
std::vector<std::string> PresentTiers(const MspOptions& options) {
  std::vector<std::string> names = TierNames(options.tiers);
  for (size_t t = 0; t < names.size(); ++t) {
    if (!options.Has(t)) names[t].clear();
  }
  return names;
}

std::optional<int64_t> ParseWhole(std::string_view text) {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

Result<std::vector<int64_t>> ReadRanks(const AdapterSpec& spec) {
  std::vector<int64_t> ranks;
  const auto option = std::find_if(spec.options.begin(), spec.options.end(),
                                   [](const auto& named) { return named.first == kRanksOption; });
  if (option == spec.options.end()) return ranks;
  const auto wrong = [&](std::string_view why) {
    return InvalidArgument(Str("[adapter] option ", kRanksOption, " is \"", option->second, "\", ",
                               why,
                               "; wanted one rank for each tier, coarse to fine, as \"8,4,2\""));
  };
  const std::string_view text = option->second;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::optional<int64_t> rank = ParseWhole(text.substr(begin, comma - begin));
    if (!rank || *rank < 0 || *rank > limits::kRankMax) {
      return wrong(Str("of which \"", text.substr(begin, comma - begin),
                       "\" is not a whole number from 0 to ", limits::kRankMax));
    }
    ranks.push_back(*rank);
    if (static_cast<int64_t>(ranks.size()) > kTiersMax) {
      return wrong(Str("which is more than ", kTiersMax, " tiers"));
    }
    begin = comma + 1;
  }
  return ranks;
}

Result<MspOptions> ReadOptions(const AdapterSpec& spec) {
  MspOptions options;
  WEFT_TRY_ASSIGN(options.ranks, ReadRanks(spec));
  const auto named = static_cast<int64_t>(options.ranks.size());
  WEFT_TRY_ASSIGN(options.tiers,
                  IntegerOption(spec, "tiers", named > 0 ? named : kTiersStandard, 1, kTiersMax));
  WEFT_TRY_ASSIGN(options.groups, IntegerOption(spec, "groups", kGroupsStandard, 1, kGroupsMax));
  WEFT_TRY_ASSIGN(const std::string staged, WordOption(spec, "staged", {"false", "true"}));
  options.staged = staged == "true";
  WEFT_TRY_ASSIGN(options.part, WordOption(spec, "part", {"all", "shared", "own", "personal"}));
  if (named > 0 && named != options.tiers) {
    return InvalidArgument(Str("[adapter] option ", kRanksOption, " names ", named,
                               " ranks, msplora.tiers is ", options.tiers));
  }
  const std::vector<std::string> names = PresentTiers(options);
  if (std::all_of(names.begin(), names.end(), [](const auto& name) { return name.empty(); })) {
    return InvalidArgument(Str("[adapter] ", options.tiers, " tiers, ", kRanksOption,
                               " and msplora.part \"", options.part, "\" leave no tier at all"));
  }
  return options;
}

Result<std::vector<int64_t>> RanksOf(const MspOptions& options, const AdapterSpec& spec,
                                     const LinearSite& site) {
  std::vector<int64_t> ranks = options.ranks;
  if (ranks.empty()) {
    int64_t rank = RankFor(spec, site.path);
    WEFT_TRY(CheckRank(rank, site.path));
    for (int64_t t = 0; t < options.tiers; ++t, rank /= 2) {
      ranks.push_back(std::max<int64_t>(rank, 1));
    }
  }
  const int64_t most = std::min(site.in, site.out);
  WEFT_TRY(CheckRank(std::min(most, limits::kRankMax), site.path));
  for (size_t t = 0; t < ranks.size(); ++t) {
    ranks[t] = options.Has(t) ? std::min(ranks[t], most) : 0;
  }
  return ranks;
}

int64_t Depth(std::span<const LayerPlace> places) {
  int64_t last = 0;
  for (const LayerPlace& place : places) last = std::max(last, place.layer);
  return last + 1;
}

// What a site must have in common with the first that holds the tier.
struct Sharer {
  const LinearSite& site;
  int64_t rank;
  double alpha;
};

Status CheckShares(const Sharer& site, const Sharer& first, const std::string& tier,
                   const std::string& type) {
  const auto wrong = [&](const std::string& got, const std::string& wanted) {
    return InvalidArgument(Str("[adapter] site ", site.site.path, " ", got, ", but shares tier \"",
                               tier, "\" of ", type, " with ", first.site.path, ", which ", wanted,
                               "; leave it out of the targets, or give both the same"));
  };
  if (site.site.in != first.site.in || site.site.out != first.site.out) {
    return wrong(Str("is ", site.site.out, "×", site.site.in, " (out×in)"),
                 Str("is ", first.site.out, "×", first.site.in));
  }
  if (site.rank != first.rank) {
    return wrong(Str("has rank ", site.rank), Str("has rank ", first.rank));
  }
  // NaN was refused by CheckSpec; a peer's spec is compared with the plan's before it comes here.
  if (site.alpha != first.alpha) {
    return wrong(Str("has alpha ", site.alpha), Str("has alpha ", first.alpha));
  }
  return OkStatus();
}

LowRank SideBySide(std::vector<at::Tensor> A, std::vector<at::Tensor> B) {
  if (A.size() == 1) return {std::move(A[0]), std::move(B[0])};
  return {at::cat(A, 0), at::cat(B, 1)};
}

class MspLora final : public Adapter {
 public:
  std::string_view name() const override { return "msplora"; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckMethodSpec(spec, {"tiers", "groups", "ranks", "staged", "part"}));
    return ReadOptions(spec).status();
  }

  Result<std::vector<SiteLayout>> Layout(const AdapterSpec& spec,
                                         std::span<const LinearSite> sites) const override {
    WEFT_TRY_ASSIGN(const MspOptions options, ReadOptions(spec));
    const std::vector<std::string> names = TierNames(options.tiers);
    std::vector<LayerPlace> places;
    for (const LinearSite& site : sites) places.push_back(LayerPlaceOf(site.path));
    const int64_t depth = Depth(places);
    std::map<std::tuple<std::string, size_t, int64_t>, size_t> owners;
    std::vector<std::vector<int64_t>> ranks;
    std::vector<SiteLayout> layout(sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
      WEFT_TRY_ASSIGN(std::vector<int64_t> own, RanksOf(options, spec, sites[i]));
      ranks.push_back(std::move(own));
      for (size_t t = 0; t < names.size(); ++t) {
        const int64_t rank = ranks[i][t];
        if (rank == 0) continue;
        size_t owner = i;
        if (t == 0 || t + 1 < names.size()) {
          const int64_t group = t == 0 ? 0 : MidGroup(options.groups, places[i].layer, depth);
          owner = owners.try_emplace({places[i].type, t, group}, i).first->second;
        }
        if (owner != i) {
          WEFT_TRY(CheckShares({sites[i], rank, AlphaFor(spec, sites[i].path)},
                               {sites[owner], ranks[owner][t], AlphaFor(spec, sites[owner].path)},
                               names[t], places[i].type));
        }
        layout[i].push_back({names[t] + ".A", {rank, sites[i].in}, owner});
        layout[i].push_back({names[t] + ".B", {sites[i].out, rank}, owner});
      }
    }
    return layout;
  }

  Result<AdapterState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                            uint64_t seed) const override {
    WEFT_TRY(CheckSpec(spec));
    WEFT_TRY_ASSIGN(const std::vector<SiteLayout> layout, Layout(spec, sites));
    AdapterState state;
    state.spec = spec;
    for (size_t i = 0; i < sites.size(); ++i) {
      SiteState site{sites[i], {}};
      for (const TensorLayout& tensor : layout[i]) {
        if (tensor.owner != i) {
          site.tensors.push_back({tensor.name, state.sites[tensor.owner].Get(tensor.name)});
        } else if (tensor.name.ends_with(".A")) {
          site.tensors.push_back({tensor.name, RandomFactorA(tensor.shape[0], tensor.shape[1], seed,
                                                             sites[i].path, tensor.name)});
        } else {
          site.tensors.push_back({tensor.name, at::zeros(tensor.shape, at::kFloat)});
        }
      }
      state.sites.push_back(std::move(site));
    }
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec& spec) const override {
    std::vector<std::string> trainable;
    for (const std::string& tier : PresentTiers(ReadOptions(spec).value())) {
      if (tier.empty()) continue;
      trainable.push_back(tier + ".A");
      trainable.push_back(tier + ".B");
    }
    return trainable;
  }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    return Factors(state, state.sites.at(site_index), nullptr);
  }

  std::vector<LowRank> EffectiveAll(const AdapterState& state, const Prepared*) const override {
    ScaledTensors scaled;
    std::vector<LowRank> factors;
    factors.reserve(state.sites.size());
    for (const SiteState& site : state.sites) factors.push_back(Factors(state, site, &scaled));
    return factors;
  }

  int64_t FactorRank(const AdapterSpec& spec, const LinearSite& site) const override {
    const std::vector<int64_t> ranks = TierRanks(spec, site).value();
    int64_t total = 0;
    for (const int64_t rank : ranks) total += rank;
    return total;
  }

  Status CheckMerges(const AdapterSpec& spec) const override { return CheckSpec(spec); }

  // Tier by tier, so that what layers share stays shared.
  Result<Merged> Merge(std::span<const AdapterUpdate> updates, const AdapterSpec& spec,
                       uint64_t seed) const override {
    WEFT_TRY_ASSIGN(const MspMerge merge, MergeMsp(updates));
    Merged merged{{}, LowerMsp(merge)};
    WEFT_TRY_ASSIGN(merged.state, MspStateOf(spec, merge, seed));
    return merged;
  }

  std::optional<AdapterSpec> KeptSpec(const AdapterSpec& spec) const override {
    const std::string* const part = FindOption(spec, "msplora.part");
    if (part == nullptr || *part != "personal") return std::nullopt;
    AdapterSpec own = spec;
    SetOption(own, "part", "own");
    return own;
  }

  Result<AdapterState> Join(const Parts& parts) const override {
    MspParts own{parts.shipped, parts.kept};
    SetOption(own.shared.spec, "part", "shared");
    return JoinMsp(own);
  }

  Result<Parts> Split(const AdapterState& joined, const AdapterSpec& spec) const override {
    WEFT_TRY_ASSIGN(MspParts parts, SplitMsp(joined));
    parts.shared.spec = spec;
    parts.own.spec = *KeptSpec(spec);
    return Parts{std::move(parts.shared), std::move(parts.own)};
  }

  std::unique_ptr<StepRule> NewStepRule(const AdapterState& state,
                                        const StepSchedule& schedule) const override {
    const MspOptions options = ReadOptions(state.spec).value();
    if (!options.staged) return nullptr;
    std::vector<std::string> stages = PresentTiers(options);
    std::erase(stages, "");
    return NewStagedTiers(std::move(stages), schedule);
  }

 private:
  // s_t·B_t of tensors met before: a shared one is scaled once, and its gradients are summed there.
  using ScaledTensors = std::unordered_map<const c10::TensorImpl*, at::Tensor>;  // looked up only

  // [A_global; A_mid; …] and [s_g·B_global, s_m·B_mid, …] of the tiers that the site holds.
  static LowRank Factors(const AdapterState& state, const SiteState& site, ScaledTensors* known) {
    std::vector<at::Tensor> A;
    std::vector<at::Tensor> B;
    for (size_t j = 0; j + 1 < site.tensors.size(); j += 2) {
      const at::Tensor& B_OR = site.tensors[j + 1].value;
      A.push_back(site.tensors[j].value);
      at::Tensor fresh;
      at::Tensor& scaled = known == nullptr ? fresh : (*known)[B_OR.unsafeGetTensorImpl()];
      if (!scaled.defined()) {
        scaled = B_OR * TierScaling(state.spec, site.site.path, B_OR.size(1));
      }
      B.push_back(scaled);
    }
    WEFT_CHECK(!A.empty(), "site ", site.site.path, " has no tier");
    return SideBySide(std::move(A), std::move(B));
  }
};

}  // namespace

LayerPlace LayerPlaceOf(std::string_view path) {
  LayerPlace place;
  bool found = false;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t dot = std::min(path.find('.', begin), path.size());
    const std::string_view segment = path.substr(begin, dot - begin);
    if (begin > 0) place.type += '.';
    const std::optional<int64_t> number = found ? std::nullopt : ParseWhole(segment);
    found = found || (number && *number >= 0 && *number < kLayersMax);
    const bool here = found && number.has_value();
    place.type += here ? "*" : segment;
    if (here) place.layer = *number;
    begin = dot + 1;
  }
  return place;
}

int64_t MidGroup(int64_t groups, int64_t layer, int64_t depth) {
  WEFT_CHECK(groups >= 1 && layer >= 0 && layer < depth, "layer ", layer, " of ", depth, " in ",
             groups, " groups");
  return groups * layer / depth;
}

std::vector<std::string> TierNames(int64_t tiers) {
  std::vector<std::string> names = {"global"};
  for (int64_t t = 1; t + 1 < tiers; ++t) names.push_back(t == 1 ? "mid" : Str("mid", t));
  if (tiers > 1) names.emplace_back("layer");
  return names;
}

Result<std::vector<int64_t>> TierRanks(const AdapterSpec& spec, const LinearSite& site) {
  WEFT_TRY_ASSIGN(const MspOptions options, ReadOptions(spec));
  return RanksOf(options, spec, site);
}

double TierScaling(const AdapterSpec& spec, std::string_view path, int64_t rank) {
  const auto r = static_cast<double>(rank);
  return AlphaFor(spec, path) / (spec.rslora ? std::sqrt(r) : r);
}

const Adapter* MspLoraAdapter() {
  static const MspLora method;
  return &method;
}

}  // namespace weft
