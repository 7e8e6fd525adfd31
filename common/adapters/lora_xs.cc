#include "common/adapters/lora_xs.h"

#include <cmath>

#include "common/adapters/match.h"
#include "common/adapters/method_spec.h"
#include "common/adapters/nola_basis.h"
#include "common/base/random.h"
#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

constexpr int64_t kSeedMax = int64_t{1} << 53;

Result<int64_t> SeedOf(const AdapterSpec& spec) {
  WEFT_TRY(WordOption(spec, "generator", {kNolaGenerator}).status());
  return IntegerOption(spec, "seed", 0, 0, kSeedMax);
}

// `rank` rows of mean square 1/side; those of a smaller rank are the first of them.
at::Tensor Basis(const AdapterSpec& spec, const LinearSite& site, std::string_view factor,
                 int64_t side, at::Device device) {
  const Result<int64_t> seed = SeedOf(spec);
  WEFT_CHECK(seed.ok(), seed.status());
  const uint64_t key =
      RandomStream::Derive(static_cast<uint64_t>(*seed), {"lora-xs", factor, site.path}).key();
  // Uniform on (−1, 1) has the mean square 1/3.
  return BasisMatrix(key, 0, SiteRank(spec, site), side, device)
      .mul_(std::sqrt(3.0 / static_cast<double>(side)));
}

// A and s·B.
LowRank Bases(const AdapterSpec& spec, const LinearSite& site, at::Device device) {
  at::Tensor B_RO = Basis(spec, site, "B", site.out, device).mul_(ScalingFor(spec, site.path));
  return {Basis(spec, site, "A", site.in, device), B_RO.t().contiguous()};
}

class LoraXsPrepared final : public Prepared {
 public:
  std::vector<LowRank> bases;  // of each site
};

class LoraXs final : public Adapter {
 public:
  std::string_view name() const override { return "lora-xs"; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckMethodSpec(spec, {"seed", "generator"}));
    return SeedOf(spec).status();
  }

  // The same bases in all rounds, so that what rounds learn adds up.
  AdapterSpec ForRound(const AdapterSpec& spec, uint64_t seed, uint64_t) const override {
    AdapterSpec own = spec;
    const uint64_t key = RandomStream::Derive(seed, {"lora-xs"}).key() % (uint64_t{1} << 53);
    if (FindOption(spec, "lora-xs.seed") == nullptr) SetOption(own, "seed", std::to_string(key));
    SetOption(own, "generator", std::string(kNolaGenerator));
    return own;
  }

  Result<std::vector<SiteLayout>> Layout(const AdapterSpec& spec,
                                         std::span<const LinearSite> sites) const override {
    std::vector<SiteLayout> layout;
    layout.reserve(sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
      const int64_t rank = SiteRank(spec, sites[i]);
      WEFT_TRY(CheckRank(rank, sites[i].path));
      layout.push_back({{"R", {rank, rank}, i}});
    }
    return layout;
  }

  Result<AdapterState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                            uint64_t) const override {
    WEFT_TRY(CheckSpec(spec));
    AdapterState state;
    state.spec = spec;
    for (const LinearSite& site : sites) {
      const int64_t rank = SiteRank(spec, site);
      state.sites.push_back({site, {{"R", at::zeros({rank, rank}, at::kFloat)}}});
    }
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec&) const override { return {"R"}; }

  std::shared_ptr<const Prepared> Prepare(const AdapterState& state,
                                          at::Device device) const override {
    auto prepared = std::make_shared<LoraXsPrepared>();
    for (const SiteState& site : state.sites) {
      prepared->bases.push_back(Bases(state.spec, site.site, device));
    }
    return prepared;
  }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    const SiteState& site = state.sites.at(site_index);
    return WithCore(site.Get("R"), Bases(state.spec, site.site, site.Get("R").device()));
  }

  std::vector<LowRank> EffectiveAll(const AdapterState& state,
                                    const Prepared* given) const override {
    if (given == nullptr) return Adapter::EffectiveAll(state, given);
    const auto& prepared = static_cast<const LoraXsPrepared&>(*given);
    std::vector<LowRank> factors;
    for (size_t i = 0; i < state.sites.size(); ++i) {
      factors.push_back(WithCore(state.sites[i].Get("R"), prepared.bases[i]));
    }
    return factors;
  }

  Status CheckMerges(const AdapterSpec& spec) const override { return CheckSpec(spec); }

  // Σ p_c·s·B·R_c·A = s·B·(Σ p_c·R_c)·A: the bases are the same for all.
  Result<Merged> Merge(std::span<const AdapterUpdate> updates, const AdapterSpec& spec,
                       uint64_t) const override {
    const at::NoGradGuard no_grad;
    WEFT_CHECK(!updates.empty(), "a merge of no updates");
    AdapterState exact;
    exact.spec = spec;
    for (size_t i = 0; i < updates[0].state->sites.size(); ++i) {
      const SiteState& first = updates[0].state->sites[i];
      at::Tensor mean = at::zeros_like(first.Get("R"), at::kDouble);
      for (const AdapterUpdate& update : updates) {
        const AdapterState& own = *update.state;
        if (own.spec != updates[0].state->spec) {
          return FailedPrecondition("[lora-xs] cores of different bases or ranks have no mean");
        }
        mean.add_(own.sites[i].Get("R").to(at::kDouble), update.weight);
      }
      exact.sites.push_back({first.site, {{"R", std::move(mean)}}});
    }
    Merged merged{CloneTo(exact, at::kCPU, at::kFloat), {}};
    for (size_t i = 0; i < exact.sites.size(); ++i) {
      merged.before_cutting.push_back({exact.sites[i].site, Effective(exact, i)});
    }
    return merged;
  }

 private:
  static LowRank WithCore(const at::Tensor& R_RR, const LowRank& bases) {
    const at::ScalarType type = R_RR.scalar_type();
    return {bases.A_RI.to(type), at::matmul(bases.B_OR.to(type), R_RR)};
  }
};

}  // namespace

const Adapter* LoraXsAdapter() {
  static const LoraXs method;
  return &method;
}

}  // namespace weft
