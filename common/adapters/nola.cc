#include "common/adapters/nola.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "common/adapters/method_spec.h"
#include "common/adapters/nola_basis.h"
#include "common/base/check.h"
#include "common/base/random.h"
#include "common/base/str.h"

// Shape legend: L layers, K bases of a factor, E its elements, R rank, I in, O out.

namespace weft {
namespace {

constexpr int64_t kBasesStandard = 512;
constexpr int64_t kBasesMax = 65536;
constexpr int64_t kSeedMax = int64_t{1} << 53;

// A spec's own options; their text was checked by CheckSpec.
struct NolaOptions {
  int64_t k = kBasesStandard;
  bool shared = true;
  std::string train = "both";
  bool alternate = false;
  uint64_t seed = 0;
};

Result<NolaOptions> ReadOptions(const AdapterSpec& spec) {
  NolaOptions options;
  WEFT_TRY_ASSIGN(options.k, IntegerOption(spec, "k", kBasesStandard, 1, kBasesMax));
  WEFT_TRY_ASSIGN(const std::string basis, WordOption(spec, "basis", {"shared", "site"}));
  options.shared = basis == "shared";
  WEFT_TRY_ASSIGN(options.train, WordOption(spec, "train", {"both", "alpha", "beta"}));
  WEFT_TRY_ASSIGN(const std::string rounds, WordOption(spec, "rounds", {"restart", "alternate"}));
  options.alternate = rounds == "alternate";
  WEFT_TRY_ASSIGN(const int64_t seed, IntegerOption(spec, "seed", 0, 0, kSeedMax));
  options.seed = static_cast<uint64_t>(seed);
  WEFT_TRY(WordOption(spec, "generator", {kNolaGenerator}).status());
  return options;
}

NolaOptions OptionsOf(const AdapterSpec& spec) {
  Result<NolaOptions> options = ReadOptions(spec);
  WEFT_CHECK(options.ok(), options.status());
  return *options;
}

// One factor of one layer: [rows of rank × side] or the other way round, E = rank·side elements.
struct Factor {
  uint64_t key = 0;
  int64_t rank = 0;
  int64_t side = 0;
  [[nodiscard]] int64_t elements() const { return rank * side; }
};

Factor FactorOf(const NolaOptions& options, const AdapterSpec& spec, const LinearSite& site,
                bool is_a) {
  Factor factor{0, SiteRank(spec, site), is_a ? site.in : site.out};
  const std::string_view name = is_a ? "A" : "B";
  const std::string shape = Str(factor.rank, "x", factor.side);
  factor.key = options.shared
                   ? RandomStream::Derive(options.seed, {"nola", name, shape}).key()
                   : RandomStream::Derive(options.seed, {"nola", name, shape, site.path}).key();
  return factor;
}

// A₀ as LoRA draws it, uniform within ±1/√in: one basis beside the others, of the layer's own
// stream even where the bases are shared.
at::Tensor Offset(const NolaOptions& options, const LinearSite& site, int64_t elements,
                  at::Device device) {
  const uint64_t key = RandomStream::Derive(options.seed, {"nola", "A0", site.path}).key();
  return BasisMatrix(key, kOffsetBasis, 1, elements, device)
      .div_(std::sqrt(static_cast<double>(site.in)));
}

// Layers whose factor has the same bases, and those.
struct SharedBases {
  Factor factor;
  bool is_a = false;
  std::vector<size_t> sites;
  at::Tensor bases_KE;
  at::Tensor offsets_LE;  // undefined: none
};

class NolaPrepared final : public Prepared {
 public:
  std::vector<SharedBases> groups;  // of shared bases
  std::vector<at::Tensor> offsets;  // of layers with their own, [1×E] each
};

class Nola final : public Adapter {
 public:
  std::string_view name() const override { return "nola"; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckMethodSpec(spec, {"k", "basis", "train", "rounds", "seed", "generator"}));
    return ReadOptions(spec).status();
  }

  // Fresh bases in every round: the sum of the rounds leaves the span of 2k directions. Or the same
  // bases in all, and one side at a time: B first, for while B = 0 the other learns nothing.
  AdapterSpec ForRound(const AdapterSpec& spec, uint64_t seed, uint64_t round) const override {
    AdapterSpec own = spec;
    const bool alternate = OptionsOf(spec).alternate;
    const std::string bases = alternate ? "all" : std::to_string(round);
    const uint64_t key = RandomStream::Derive(seed, {"nola-round", bases}).key() % (1ULL << 53);
    if (alternate) SetOption(own, "train", round % 2 == 1 ? "beta" : "alpha");
    SetOption(own, "seed", std::to_string(key));
    SetOption(own, "generator", std::string(kNolaGenerator));
    return own;
  }

  Result<std::vector<SiteLayout>> Layout(const AdapterSpec& spec,
                                         std::span<const LinearSite> sites) const override {
    WEFT_TRY_ASSIGN(const NolaOptions options, ReadOptions(spec));
    std::vector<SiteLayout> layout;
    layout.reserve(sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
      WEFT_TRY(CheckRank(SiteRank(spec, sites[i]), sites[i].path));
      layout.push_back({{"alpha", {options.k}, i}, {"beta", {options.k}, i}});
    }
    return layout;
  }

  Result<AdapterState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                            uint64_t) const override {
    WEFT_TRY(CheckSpec(spec));
    const int64_t k = OptionsOf(spec).k;
    AdapterState state;
    state.spec = spec;
    for (const LinearSite& site : sites) {
      state.sites.push_back(
          {site, {{"alpha", at::zeros({k}, at::kFloat)}, {"beta", at::zeros({k}, at::kFloat)}}});
    }
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec& spec) const override {
    const std::string train = OptionsOf(spec).train;
    if (train == "both") return {"alpha", "beta"};
    return {train};
  }

  std::shared_ptr<const Prepared> Prepare(const AdapterState& state,
                                          at::Device device) const override {
    const NolaOptions options = OptionsOf(state.spec);
    auto prepared = std::make_shared<NolaPrepared>();
    for (const SiteState& site : state.sites) {
      const Factor A = FactorOf(options, state.spec, site.site, /*is_a=*/true);
      prepared->offsets.push_back(Offset(options, site.site, A.elements(), device));
    }
    if (options.shared) ShareBases(options, state, device, *prepared);
    return prepared;
  }

  Status CheckMerges(const AdapterSpec& spec) const override {
    WEFT_TRY_ASSIGN(const NolaOptions options, ReadOptions(spec));
    if (options.alternate || options.train != "both") return OkStatus();
    return InvalidArgument(
        "[nola] both sides' coefficients have no mean, and every round has its own bases; set "
        "option nola.rounds to \"alternate\"");
  }

  // Where the clients share one side, as they do while it is frozen, the mean of the other is
  // exact.
  Result<Merged> Merge(std::span<const AdapterUpdate> updates, const AdapterSpec& spec,
                       uint64_t) const override {
    const at::NoGradGuard no_grad;
    WEFT_CHECK(!updates.empty(), "a merge of no updates");
    AdapterState exact;
    exact.spec = spec;
    for (size_t i = 0; i < updates[0].state->sites.size(); ++i) {
      const LinearSite& site = updates[0].state->sites[i].site;
      if (!AllEqual(updates, i, "alpha") && !AllEqual(updates, i, "beta")) {
        return FailedPrecondition(
            Str("[nola] site ", site.path,
                ": both sides' coefficients differ between clients, so that they have no mean"));
      }
      exact.sites.push_back(
          {site, {{"alpha", Mean(updates, i, "alpha")}, {"beta", Mean(updates, i, "beta")}}});
    }
    Merged merged{CloneTo(exact, at::kCPU, at::kFloat), {}};
    const std::vector<LowRank> factors = EffectiveAll(exact, nullptr);
    for (size_t i = 0; i < factors.size(); ++i) {
      merged.before_cutting.push_back({exact.sites[i].site, factors[i]});
    }
    return merged;
  }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    const NolaOptions options = OptionsOf(state.spec);
    const SiteState& site = state.sites.at(site_index);
    const Factor A = FactorOf(options, state.spec, site.site, /*is_a=*/true);
    const at::Tensor& alpha = site.Get("alpha");
    return OwnBases(options, state.spec, site,
                    Offset(options, site.site, A.elements(), alpha.device()));
  }

  std::vector<LowRank> EffectiveAll(const AdapterState& state,
                                    const Prepared* given) const override {
    if (state.sites.empty()) return {};
    std::shared_ptr<const Prepared> own;
    if (given == nullptr) {
      own = Prepare(state, state.sites[0].Get("alpha").device());
      given = own.get();
    }
    const auto& prepared = static_cast<const NolaPrepared&>(*given);
    const NolaOptions options = OptionsOf(state.spec);
    std::vector<LowRank> factors(state.sites.size());
    if (!options.shared) {
      for (size_t i = 0; i < factors.size(); ++i) {
        factors[i] = OwnBases(options, state.spec, state.sites[i], prepared.offsets[i]);
      }
      return factors;
    }
    for (const SharedBases& group : prepared.groups) {
      std::vector<at::Tensor> coefficients;
      for (const size_t i : group.sites) {
        coefficients.push_back(state.sites[i].Get(group.is_a ? "alpha" : "beta"));
      }
      const at::Tensor all_LE =
          CombineBases(at::stack(coefficients), group.bases_KE, group.offsets_LE);
      for (size_t l = 0; l < group.sites.size(); ++l) {
        const at::Tensor one_E = all_LE[static_cast<int64_t>(l)];
        SetFactor(factors[group.sites[l]], state, group.sites[l], group.factor, group.is_a, one_E);
      }
    }
    return factors;
  }

 private:
  static bool AllEqual(std::span<const AdapterUpdate> updates, size_t site, const char* side) {
    const at::Tensor& first = updates[0].state->sites[site].Get(side);
    return std::all_of(updates.begin(), updates.end(), [&](const AdapterUpdate& update) {
      return at::equal(update.state->sites[site].Get(side), first);
    });
  }

  // In float64; of equal ones that one itself.
  static at::Tensor Mean(std::span<const AdapterUpdate> updates, size_t site, const char* side) {
    const at::Tensor first = updates[0].state->sites[site].Get(side).to(at::kDouble);
    if (AllEqual(updates, site, side)) return first;
    at::Tensor mean = at::zeros_like(first);
    for (const AdapterUpdate& update : updates) {
      mean.add_(update.state->sites[site].Get(side).to(at::kDouble), update.weight);
    }
    return mean;
  }

  static void ShareBases(const NolaOptions& options, const AdapterState& state, at::Device device,
                         NolaPrepared& prepared) {
    std::map<std::pair<uint64_t, bool>, size_t> known;  // (key, is A) → group
    for (size_t i = 0; i < state.sites.size(); ++i) {
      for (const bool is_a : {true, false}) {
        const Factor factor = FactorOf(options, state.spec, state.sites[i].site, is_a);
        const auto [at, is_new] = known.try_emplace({factor.key, is_a}, prepared.groups.size());
        if (is_new) {
          prepared.groups.push_back(
              {factor,
               is_a,
               {},
               BasisMatrix(factor.key, 0, options.k, factor.elements(), device),
               {}});
        }
        prepared.groups[at->second].sites.push_back(i);
      }
    }
    for (SharedBases& group : prepared.groups) {
      if (!group.is_a) continue;
      std::vector<at::Tensor> offsets;
      for (const size_t i : group.sites) offsets.push_back(prepared.offsets[i]);
      group.offsets_LE = at::cat(offsets, 0);
    }
    prepared.offsets.clear();
  }

  static LowRank OwnBases(const NolaOptions& options, const AdapterSpec& spec,
                          const SiteState& site, const at::Tensor& offset_1E) {
    const double scale = 1.0 / std::sqrt(static_cast<double>(options.k));
    const at::Tensor& alpha = site.Get("alpha");
    const at::Tensor& beta = site.Get("beta");
    const Factor A = FactorOf(options, spec, site.site, /*is_a=*/true);
    const Factor B = FactorOf(options, spec, site.site, /*is_a=*/false);
    const at::Tensor a_E =
        offset_1E[0].to(alpha.scalar_type()) + BasisSum(A.key, alpha, A.elements()) * scale;
    const at::Tensor b_E =
        BasisSum(B.key, beta, B.elements()) * (scale * ScalingFor(spec, site.site.path));
    return {a_E.view({A.rank, A.side}), b_E.view({B.side, B.rank})};
  }

  static void SetFactor(LowRank& factors, const AdapterState& state, size_t site,
                        const Factor& factor, bool is_a, const at::Tensor& one_E) {
    if (is_a) {
      factors.A_RI = one_E.view({factor.rank, factor.side});
      return;
    }
    const double scaling = ScalingFor(state.spec, state.sites[site].site.path);
    const at::Tensor B_OR = one_E.view({factor.side, factor.rank});
    factors.B_OR = scaling == 1.0 ? B_OR : B_OR * scaling;
  }
};

}  // namespace

at::Tensor CombineBases(const at::Tensor& coefficients_LK, const at::Tensor& bases_KE,
                        const at::Tensor& offsets_LE) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(coefficients_LK.size(1)));
  const at::ScalarType type = coefficients_LK.scalar_type();
  if (!offsets_LE.defined()) return at::mm(coefficients_LK, bases_KE.to(type)) * scale;
  return at::addmm(offsets_LE.to(type), coefficients_LK, bases_KE.to(type), 1, scale);
}

const Adapter* NolaAdapter() {
  static const Nola method;
  return &method;
}

}  // namespace weft
