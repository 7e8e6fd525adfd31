#include "common/adapters/lora.h"

#include "common/adapters/factor_init.h"
#include "common/adapters/match.h"
#include "common/adapters/method_spec.h"
#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

constexpr std::string_view kTrain = "train";

class Lora final : public Adapter {
 public:
  std::string_view name() const override { return "lora"; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckMethodSpec(spec, {kTrain, "slots"}));
    return WordOption(spec, kTrain, {"both", "A", "B"}).status();
  }

  Result<std::vector<SiteLayout>> Layout(const AdapterSpec& spec,
                                         std::span<const LinearSite> sites) const override {
    std::vector<SiteLayout> layout;
    layout.reserve(sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
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
    for (const LinearSite& site : sites) {
      const int64_t rank = RankFor(spec, site.path);
      state.sites.push_back({site,
                             {{"A", RandomFactorA(rank, site.in, seed, site.path, "A")},
                              {"B", at::zeros({site.out, rank}, at::kFloat)}}});
    }
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec& spec) const override {
    const std::string trained = TrainedFactor(spec);
    return trained == "both" ? std::vector<std::string>{"A", "B"} : std::vector{trained};
  }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    const SiteState& site = state.sites.at(site_index);
    const double scaling = ScalingFor(state.spec, site.site.path);
    const at::Tensor& B_OR = site.Get("B");
    return {site.Get("A"), scaling == 1.0 ? B_OR : B_OR * scaling};
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
