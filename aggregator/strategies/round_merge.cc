#include "aggregator/strategies/round_merge.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "aggregator/strategies/slots.h"
#include "common/base/str.h"
#include "common/tensor/guard.h"

// Shape legend: O out, I in, R rank.

namespace weft {
namespace {

// One site's share of the certificate: squares, so that sites add up.
struct SiteOutcome {
  SiteState state;
  double target = 0;
  double ideal = 0;
  double before_truncation = 0;
  double published = 0;
  double to_ideal = 0;
  double cut_energy = 0;
  double whole_energy = 0;
  double effective_rank = 0;
  std::vector<double> client_norms;       // ‖D_k‖²
  std::vector<double> client_alignments;  // ⟨D_k, Σ p_j D_j⟩
};

double Square(const at::Tensor& core) { return core.square().sum().item<double>(); }

// √(part / whole), for squares; no distance from nothing to nothing.
double Ratio(double part, double whole) { return part == 0 ? 0 : std::sqrt(part / whole); }

LowRank SlotsFrom(const SiteState& site, int64_t first) {
  const at::Tensor A_RI = site.Get("A").to(at::kDouble);
  const at::Tensor B_OR = site.Get("B").to(at::kDouble);
  const int64_t count = A_RI.size(0) - first;
  return {A_RI.narrow(0, first, count), B_OR.narrow(1, first, count)};
}

// What clients are given, as the rule's target counts it: the new global adapter, or its growth.
LowRankSum Published(const SiteMerge& merge, const SiteState& state, const SiteState& old) {
  LowRankSum published(old.site.out, old.site.in);
  published.Add(SlotsFrom(state, merge.kept));
  if (merge.adds_to_old && old.Get("A").size(0) > merge.kept) {
    published.Add(SlotsFrom(old, merge.kept), -1);
  }
  return published;
}

void CertifySite(const SiteMerge& merge, const SiteState& old, SiteOutcome& outcome) {
  const LowRankSum published = Published(merge, outcome.state, old);
  const LowRankSum* const sums[] = {&merge.ideal, &merge.rest, &merge.before_truncation,
                                    &published};
  const std::vector<at::Tensor> cores = Cores(sums);
  const at::Tensor target = merge.aims_at_ideal ? cores[0] + cores[1] : cores[1];
  outcome.target = Square(target);
  outcome.ideal = Square(cores[0]);
  outcome.before_truncation = Square(cores[2] - target);
  outcome.published = Square(cores[3] - target);
  outcome.to_ideal = Square(cores[3] - cores[0]);
  outcome.cut_energy = merge.cut_energy;
  outcome.whole_energy = merge.whole_energy;
  outcome.effective_rank = EffectiveRank(merge.spectrum);
}

LowRank Difference(const LowRank& x, const LowRank& y) {
  return {at::cat({x.A_RI, y.A_RI}, 0), at::cat({x.B_OR, -y.B_OR}, 1)};
}

// D_k = ΔW_k − sent_k: its norm, and its inner product with the mean of all D.
Status MeasureClients(const Strategy& strategy, const MergeInput& input, size_t site,
                      const SiteMerge& merge, SiteOutcome& outcome) {
  const SiteState& old = input.global.adapter.sites[site];
  LowRankSum sent_mean(old.site.out, old.site.in);
  if (merge.sent.B_OG.defined()) sent_mean.Add({old.Get("A"), merge.sent.B_OG});
  sent_mean.Add(merge.sent.others);
  for (size_t k = 0; k < input.updates.size(); ++k) {
    WEFT_TRY_ASSIGN(LowRank update, input.updates.Factors(k, site));
    WEFT_TRY_ASSIGN(const std::optional<LowRank> sent,
                    strategy.Sent(input.global, site, input.updates.plan(k)));
    if (sent) update = Difference(update, *sent);
    outcome.client_norms.push_back(GramSquare(update));
    outcome.client_alignments.push_back(InnerProduct(update, merge.ideal) -
                                        InnerProduct(update, sent_mean));
  }
  return OkStatus();
}

Result<SiteOutcome> MergeOneSite(const Strategy& strategy, const MergeInput& input,
                                 std::span<const int64_t> rank_plan, size_t site) {
  const SiteState& old = input.global.adapter.sites[site];
  WEFT_TRY_ASSIGN(const SiteMerge merge, strategy.MergeSite(input, rank_plan, site));
  SiteOutcome outcome;
  outcome.state = {old.site,
                   {{"A", merge.factors.A_RI.to(at::kFloat).contiguous()},
                    {"B", merge.factors.B_OR.to(at::kFloat).contiguous()}}};
  for (const NamedTensor& tensor : outcome.state.tensors) {
    if (!at::isfinite(tensor.value).all().item<bool>()) {
      return InvalidArgument(Str("the merged ", tensor.name,
                                 " has values that are not finite in float32: the updates of this "
                                 "round are too large to be added up; bound them with "
                                 "cohort.update_norm_max"));
    }
  }
  CertifySite(merge, old, outcome);
  WEFT_TRY(MeasureClients(strategy, input, site, merge, outcome));
  return outcome;
}

Result<std::vector<SiteOutcome>> MergeSites(const Strategy& strategy, const MergeInput& input,
                                            JobControl& control) {
  WEFT_TRY_ASSIGN(const std::vector<int64_t> rank_plan, strategy.RankPlan(input));
  const auto count = static_cast<int64_t>(input.global.adapter.sites.size());
  std::vector<std::optional<Result<SiteOutcome>>> results(static_cast<size_t>(count));
  std::atomic<int64_t> done{0};
  const std::string where = Str("[", strategy.name(), "] site ");
  // At least two items: a range of one would run outside a parallel region, where the products
  // inside are split over threads and round differently.
  at::parallel_for(0, std::max<int64_t>(count, 2), 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    for (int64_t i = begin; i < std::min(end, count); ++i) {
      const auto site = static_cast<size_t>(i);
      if (control.cancelled) return;
      const std::string& path = input.global.adapter.sites[site].site.path;
      results[site] =
          Guarded(where + path, [&] { return MergeOneSite(strategy, input, rank_plan, site); });
      control.progress = static_cast<float>(++done) / static_cast<float>(count);
    }
  });
  std::vector<SiteOutcome> outcomes;
  outcomes.reserve(results.size());
  for (size_t site = 0; site < results.size(); ++site) {
    if (!results[site]) return Cancelled("[merge] stopped on request");
    if (!results[site]->ok()) {
      return results[site]->status().Within(where + input.global.adapter.sites[site].site.path);
    }
    outcomes.push_back(std::move(*results[site]).value());
  }
  return outcomes;
}

Certificate Certify(const std::vector<SiteOutcome>& outcomes, const MergeInput& input) {
  Certificate certificate;
  SiteOutcome sum;
  for (const SiteOutcome& site : outcomes) {
    const int64_t rank = site.state.Get("A").size(0);
    certificate.sites.push_back(
        {.path = site.state.site.path,
         .error_before_truncation = Ratio(site.before_truncation, site.target),
         .error_published = Ratio(site.published, site.target),
         .error_to_ideal = Ratio(site.to_ideal, site.ideal),
         .tail_energy = site.cut_energy == 0 ? 0 : site.cut_energy / site.whole_energy,
         .effective_rank = site.effective_rank,
         .rank = rank});
    sum.target += site.target;
    sum.ideal += site.ideal;
    sum.before_truncation += site.before_truncation;
    sum.published += site.published;
    sum.to_ideal += site.to_ideal;
    sum.cut_energy += site.cut_energy;
    sum.whole_energy += site.whole_energy;
    certificate.effective_rank += site.effective_rank / static_cast<double>(outcomes.size());
    certificate.rank = std::max(certificate.rank, rank);
  }
  certificate.target_norm = std::sqrt(sum.target);
  certificate.error_before_truncation = Ratio(sum.before_truncation, sum.target);
  certificate.error_published = Ratio(sum.published, sum.target);
  certificate.error_to_ideal = Ratio(sum.to_ideal, sum.ideal);
  certificate.tail_energy = sum.cut_energy == 0 ? 0 : sum.cut_energy / sum.whole_energy;

  std::vector<double> norms(input.updates.size(), 0);
  std::vector<double> alignments(input.updates.size(), 0);
  double mean = 0;  // ‖Σ p_k D_k‖² = Σ p_k ⟨D_k, Σ p_j D_j⟩
  for (size_t k = 0; k < norms.size(); ++k) {
    for (const SiteOutcome& site : outcomes) {
      norms[k] += site.client_norms[k];
      alignments[k] += site.client_alignments[k];
    }
    mean += input.updates.weight(k) * alignments[k];
  }
  for (size_t k = 0; k < norms.size(); ++k) {
    const std::string& name = input.updates.plan(k).client.name;
    const double scale = std::sqrt(norms[k]) * std::sqrt(std::max(mean, 0.0));
    certificate.client_norms.emplace_back(name, std::sqrt(norms[k]));
    certificate.client_cosines.emplace_back(name, scale == 0 ? 0 : alignments[k] / scale);
  }
  return certificate;
}

}  // namespace

Result<MergedRound> MergeRound(const Strategy& strategy, const MergeInput& input,
                               JobControl& control) {
  if (input.updates.size() == 0) return FailedPrecondition("[merge] a round without updates");
  return Guarded(Str("[", strategy.name(), "]"), [&]() -> Result<MergedRound> {
    WEFT_TRY_ASSIGN(std::vector<SiteOutcome> outcomes, MergeSites(strategy, input, control));
    MergedRound merged;
    merged.certificate = Certify(outcomes, input);
    merged.global.strategy = input.global.strategy;
    merged.global.init = input.global.init;
    for (SiteOutcome& site : outcomes) merged.global.adapter.sites.push_back(std::move(site.state));
    merged.global.adapter.spec = UnitSpec(input.global.init, merged.global.adapter.sites);
    return merged;
  });
}

Result<std::vector<double>> ClientWeights(const std::vector<UpdateHeader>& headers,
                                          const std::string& weighting, uint64_t max_examples) {
  std::vector<double> weights;
  double sum = 0;
  for (const UpdateHeader& header : headers) {
    uint64_t count = 1;
    if (weighting == "examples") {
      count = max_examples == 0 ? header.num_examples : std::min(header.num_examples, max_examples);
    } else if (weighting == "tokens") {
      count = header.label_tokens;
    } else if (weighting != "uniform") {
      return InvalidArgument(Str("[merge] cohort.weighting is \"", weighting,
                                 "\", wanted examples, tokens or uniform"));
    }
    if (count == 0) {
      return InvalidArgument(Str("[merge] client ", header.client, ": it counts 0 ", weighting));
    }
    weights.push_back(static_cast<double>(count));
    sum += weights.back();
  }
  if (weights.empty()) return InvalidArgument("[merge] a round without updates");
  for (double& weight : weights) weight /= sum;
  return weights;
}

Result<double> UpdateNorm(const Strategy& strategy, const GlobalState* global,
                          const ClientPlan& client, const AdapterState& update) {
  return Guarded("[update-norm]", [&]() -> Result<double> {
    const at::NoGradGuard no_grad;
    double square = 0;
    for (size_t i = 0; i < update.sites.size(); ++i) {
      WEFT_TRY_ASSIGN(LowRank change, LowerSite(update.spec, update.sites[i]));
      if (global != nullptr) {
        WEFT_TRY_ASSIGN(const std::optional<LowRank> sent, strategy.Sent(*global, i, client));
        if (sent) change = Difference(change, *sent);
      }
      square += GramSquare(change);
    }
    return std::sqrt(square);
  });
}

}  // namespace weft
