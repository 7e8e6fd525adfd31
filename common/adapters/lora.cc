#include "common/adapters/lora.h"

#include <cmath>

#include "common/adapters/match.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

// PEFT's default, kaiming_uniform with a = √5: a bound of √(6 / ((1 + 5)·in)) = 1/√in.
at::Tensor RandomA(int64_t rank, const LinearSite& site, uint64_t seed) {
  at::Tensor A_RI = at::empty({rank, site.in}, at::kFloat);
  RandomStream stream = RandomStream::Derive(seed, {"adapter-init", site.path, "A"});
  const double bound = 1.0 / std::sqrt(static_cast<double>(site.in));
  float* values = A_RI.data_ptr<float>();
  for (int64_t i = 0; i < A_RI.numel(); ++i) {
    values[i] = static_cast<float>((2.0 * stream.Uniform() - 1.0) * bound);
  }
  return A_RI;
}

Status CheckRank(int64_t rank, const std::string& where) {
  if (rank >= 1 && rank <= limits::kRankMax) return OkStatus();
  return InvalidArgument(
      Str("[adapter] ", where, ": rank is ", rank, ", wanted 1 to ", limits::kRankMax));
}

Status CheckAlpha(double alpha, const std::string& where) {
  if (std::isfinite(alpha) && alpha != 0) return OkStatus();
  return InvalidArgument(
      Str("[adapter] ", where, ": alpha is ", alpha, ", wanted a finite number other than 0"));
}

class Lora final : public Adapter {
 public:
  std::string_view name() const override { return "lora"; }

  Status CheckSpec(const AdapterSpec& spec) const override {
    WEFT_TRY(CheckRank(spec.rank, "rank"));
    WEFT_TRY(CheckAlpha(spec.alpha, "alpha"));
    if (!(spec.dropout >= 0 && spec.dropout < 1)) {
      return InvalidArgument(Str("[adapter] dropout is ", spec.dropout,
                                 ", wanted 0 or more and "
                                 "less than 1"));
    }
    for (const auto& [pattern, rank] : spec.rank_pattern) {
      WEFT_TRY(CheckRank(rank, "rank_pattern \"" + pattern + "\""));
    }
    for (const auto& [pattern, alpha] : spec.alpha_pattern) {
      WEFT_TRY(CheckAlpha(alpha, "alpha_pattern \"" + pattern + "\""));
    }
    for (const auto& [option, value] : spec.options) {
      if (option != kExcludeRegexOption) {
        return InvalidArgument("[adapter] method lora has no option \"" + option + "\"");
      }
    }
    return CheckPatterns(spec);
  }

  Result<AdapterState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                            uint64_t seed) const override {
    WEFT_TRY(CheckSpec(spec));
    AdapterState state;
    state.spec = spec;
    for (const LinearSite& site : sites) {
      const int64_t rank = RankFor(spec, site.path);
      state.sites.push_back(
          {site,
           {{"A", RandomA(rank, site, seed)}, {"B", at::zeros({site.out, rank}, at::kFloat)}}});
    }
    return state;
  }

  std::vector<std::string> Trainable(const AdapterSpec&) const override { return {"A", "B"}; }

  LowRank Effective(const AdapterState& state, size_t site_index) const override {
    const SiteState& site = state.sites.at(site_index);
    const double scaling = ScalingFor(state.spec, site.site.path);
    const at::Tensor& B_OR = site.Get("B");
    return {site.Get("A"), scaling == 1.0 ? B_OR : B_OR * scaling};
  }

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

}  // namespace weft
