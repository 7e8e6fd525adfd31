#include "aggregator/strategies/round_merge.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <optional>

#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/site_threads.h"
#include "aggregator/strategies/site_updates.h"
#include "aggregator/strategies/slots.h"
#include "common/adapters/adapter.h"
#include "common/adapters/change.h"
#include "common/adapters/peft_io.h"
#include "common/base/str.h"
#include "common/tensor/guard.h"

// Shape legend: O out, I in, R rank.

namespace weft {
namespace {

// Random vectors that are asked what a decomposition lost: it is either rounding or far more.
constexpr int64_t kLossProbes = 8;
// Of layers up to this wide or tall the ideal mean is formed whatever the ranks: it costs little
// and makes the distance to it exact.
constexpr int64_t kSmallSide = 256;
constexpr int64_t kEnergiesMax = 64;  // singular values that a certificate tells of

// One site's share of the certificate: squares, so that sites add up.
struct SiteOutcome {
  SiteState state;
  double target = 0;
  double ideal = 0;
  double before_truncation = 0;
  double published = 0;
  double to_ideal = 0;
  double rule = 0;
  std::vector<double> energies;  // σ² of the published ranks
  double cut_energy = 0;
  double whole_energy = 0;
  double effective_rank = 0;
  double change = 0;                      // ‖D‖² of what the round changed in the adapter
  std::vector<double> client_alignments;  // ⟨D_k, D⟩
  std::vector<NamedTensor> memory;
};

// A sum of float32 in float64 cannot overflow, and keeps every NaN and infinity.
bool AllFinite(const at::Tensor& value) {
  return std::isfinite(value.sum(at::kDouble).item<double>());
}

double Square(const at::Tensor& core) { return core.square().sum().item<double>(); }

// √(part / whole), for squares; no distance from nothing to nothing.
double Ratio(double part, double whole) { return part == 0 ? 0 : std::sqrt(part / whole); }

// The updates of a site as a robust rule has weighed them.
class WeighedUpdates final : public ForwardedUpdates {
 public:
  WeighedUpdates(const UpdateSource& all, const std::vector<double>& coefficients)
      : ForwardedUpdates(all), coefficients_(coefficients) {}

  [[nodiscard]] double weight(size_t client) const override { return coefficients_[client]; }
  [[nodiscard]] Result<SiteStack> Stack(size_t site) const override {
    WEFT_TRY_ASSIGN(SiteStack stack, all().Stack(site));
    at::Tensor scales = at::empty({stack.begins.back()}, at::kDouble);
    for (size_t k = 0; k < size(); ++k) {
      scales.narrow(0, stack.begins[k], stack.begins[k + 1] - stack.begins[k])
          .fill_(coefficients_[k] / all().weight(k));
    }
    stack.factors.B_OR = stack.factors.B_OR * scales.to(stack.factors.B_OR.device());
    return stack;
  }

 private:
  const std::vector<double>& coefficients_;
};

// The round as MergeOneSite sees it: the updates as they came, and what a robust rule made of them.
struct Round {
  const Strategy& strategy;
  const MergeInput& input;
  const std::optional<ClientChoice>& choice;
};

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

// `ideal` is Σ p_k s_k B_k A_k, or null where the rule's own sum is just that.
void CertifyTarget(const SiteMerge& merge, const LowRankSum& published, const LowRankSum* ideal,
                   SiteOutcome& outcome) {
  std::vector<const LowRankSum*> sums = {&merge.sum, &merge.rest, &merge.before_truncation,
                                         &published};
  if (ideal != nullptr) sums.push_back(ideal);
  const std::vector<at::Tensor> cores = Cores(sums);
  const at::Tensor target = cores[0] + cores[1];
  const at::Tensor& ideal_core = ideal == nullptr ? cores[0] : cores[4];
  outcome.target = Square(target);
  outcome.ideal = Square(ideal_core);
  outcome.before_truncation = Square(cores[2] - target);
  outcome.published = Square(cores[3] - target);
  outcome.to_ideal = Square(cores[3] - ideal_core);
  outcome.rule = Square(target - ideal_core);
}

// The same where the sums' own frame is at hand, as small matrices in it: what is published lies in
// it but for its rounding, and the rule's sum is the ideal. Whether the decomposition gave back
// what it was given is asked of random vectors, which know nothing of the frame.
void CertifyInFrame(const SiteMerge& merge, const LowRank& published, const LinearSite& layer,
                    SiteOutcome& outcome) {
  const Frame& frame = *merge.frame;
  const int64_t own = merge.sum.rank();
  const at::Tensor ideal =
      at::matmul(frame.R_B_QR.narrow(1, 0, own), frame.R_A_QR.narrow(1, 0, own).t());
  const at::Tensor target = at::matmul(frame.R_B_QR, frame.R_A_QR.t());
  const at::Tensor B_PO = published.B_OR.t();
  const at::Tensor inside_B_PQ = at::matmul(B_PO, frame.Q_B_OQ);
  const at::Tensor inside_A_PQ = at::matmul(published.A_RI, frame.Q_A_IQ);
  const at::Tensor outside_B_PO = B_PO - at::matmul(inside_B_PQ, frame.Q_B_OQ.t());
  const at::Tensor outside_A_PI = published.A_RI - at::matmul(inside_A_PQ, frame.Q_A_IQ.t());
  const double outside =
      GramSquare({published.A_RI, outside_B_PO.t()}) + GramSquare({outside_A_PI, inside_B_PQ.t()});
  const at::Tensor inside = at::matmul(inside_B_PQ.t(), inside_A_PQ);
  outcome.target = Square(target);
  outcome.ideal = Square(ideal);
  outcome.published = Square(inside - target) + outside;
  outcome.to_ideal = Square(inside - ideal) + outside;
  outcome.rule = Square(target - ideal);
  const at::Tensor probes_PI =
      SignProbes(layer.in, layer.path, published.A_RI.device()).narrow(0, 0, kLossProbes);
  const at::Tensor lost_PO =
      Images(merge.sum, probes_PI) + Images(merge.rest, probes_PI) - frame.Images(probes_PI);
  outcome.before_truncation = Square(lost_PO) / kLossProbes;
}

// How far what is published stays from Σ p_k s_k B_k A_k. Of many ranks the sum is not formed, nor
// held: each update is asked for its images of the probes as it passes.
Result<IdealDistance> DistanceToMean(const LowRank& published, const UpdateSource& updates,
                                     const LinearSite& layer, size_t site) {
  int64_t ranks = 0;
  for (size_t k = 0; k < updates.size(); ++k) ranks += SiteRank(updates.plan(k).adapter, layer);
  if (ranks <= kExactIdealRank || std::min(layer.out, layer.in) <= kSmallSide) {
    WEFT_TRY_ASSIGN(const LowRankSum ideal, updates.Mean(site));
    return DistanceToIdeal(published, ideal, layer.path);
  }
  const at::Tensor probes_PI = SignProbes(layer.in, layer.path, published.A_RI.device());
  at::Tensor images_PO = at::zeros({probes_PI.size(0), layer.out}, published.B_OR.options());
  WEFT_TRY(updates.EachStack(site, [&](size_t, const SiteStack& stack) {
    images_PO.addmm_(at::matmul(probes_PI, stack.factors.A_RI.t()), stack.factors.B_OR.t());
    return OkStatus();
  }));
  return DistanceToImages(published, probes_PI, images_PO);
}

// A rule with a target of its own, factors that it publishes as they are: all that comes between is
// rounding.
Status CertifyOwnTarget(const SiteMerge& merge, const UpdateSource& updates, const SiteState& old,
                        SiteOutcome& outcome, size_t site) {
  const LowRank published = SlotsFrom(outcome.state, 0);
  outcome.target = GramSquare(merge.factors);
  outcome.published = GramSquare(Difference(merge.factors, published));
  WEFT_TRY_ASSIGN(const IdealDistance distance, DistanceToMean(published, updates, old.site, site));
  outcome.ideal = distance.ideal_square;
  outcome.to_ideal = distance.square;
  outcome.rule = distance.square;  // to rounding: nothing else comes between
  return OkStatus();
}

bool IsZero(const SiteState& site) { return !site.Get("B").any().item<bool>(); }

Status CertifyBySums(SiteMerge& merge, const LowRankSum& published, const UpdateSource& updates,
                     bool sum_is_ideal, const SiteState& old, SiteOutcome& outcome, size_t site) {
  if (!merge.has_target) return CertifyOwnTarget(merge, updates, old, outcome, site);
  WEFT_TRY_ASSIGN(const LowRankSum ideal, updates.Mean(site));
  if (merge.frame) {
    merge.before_truncation = LowRankSum(old.site.out, old.site.in);
    merge.before_truncation.Add(merge.frame->Factors());
  }
  CertifyTarget(merge, published, sum_is_ideal ? nullptr : &ideal, outcome);
  return OkStatus();
}

// p_k ⟨ΔW_k, y⟩ for every client k of the stack.
std::vector<double> WeightedProducts(const SiteStack& stack, const LowRankSum& y) {
  std::vector<double> products;
  const size_t clients = stack.size();
  if (y.dense()) {
    for (size_t k = 0; k < clients; ++k) products.push_back(InnerProduct(stack.Of(k), y));
    return products;
  }
  const LowRank other = y.Stack();
  const at::Tensor gram_SR = at::matmul(other.B_OR.t(), stack.factors.B_OR)
                                 .mul_(at::matmul(other.A_RI, stack.factors.A_RI.t()));
  const at::Tensor by_rank_R = gram_SR.sum(0).cpu();
  const double* const values = by_rank_R.const_data_ptr<double>();
  for (size_t k = 0; k < clients; ++k) {
    products.push_back(
        std::accumulate(values + stack.begins[k], values + stack.begins[k + 1], 0.0));
  }
  return products;
}

// The inner product of what each client changed, D_k = ΔW_k − sent_k, with what the round changed.
Status AlignClients(const Strategy& strategy, const MergeInput& input, size_t site,
                    const LowRankSum& change, SiteOutcome& outcome) {
  outcome.change = GramSquare(change);
  std::vector<double> products;
  WEFT_TRY(input.updates.EachStack(site, [&](size_t, const SiteStack& stack) {
    const std::vector<double> own = WeightedProducts(stack, change);
    products.insert(products.end(), own.begin(), own.end());
    return OkStatus();
  }));
  double sent_with_change = 0;
  const ClientPlan* sent_to = nullptr;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const ClientPlan& plan = input.updates.plan(k);
    if (sent_to == nullptr || !SentAlike(*sent_to, plan)) {
      WEFT_TRY_ASSIGN(const std::optional<LowRank> sent,
                      strategy.Sent(input.StartOf(k), site, plan));
      sent_with_change = sent ? InnerProduct(*sent, change) : 0;
      sent_to = &plan;
    }
    outcome.client_alignments.push_back(products[k] / input.updates.weight(k) - sent_with_change);
  }
  return OkStatus();
}

Result<SiteOutcome> MergeOneSite(const Round& round, const RoundSurvey& survey, size_t site,
                                 StackMemory& memory) {
  const MergeInput& whole = round.input;
  const StrategyTraits traits = round.strategy.traits();
  // A robust rule weighs them in a stack of its own.
  const bool may_stream = !traits.needs_each_update && !traits.own_coordinates && !round.choice;
  WEFT_TRY_ASSIGN(const std::unique_ptr<UpdateSource> held,
                  UpdatesOfSite(whole.updates, whole.global.adapter.sites[site].site, site, memory,
                                may_stream));
  const UpdateSource& updates = *held;
  const MergeInput input{whole.settings, whole.global, updates, whole.round, whole.whole};
  std::optional<WeighedUpdates> weighed;
  if (round.choice) weighed.emplace(updates, round.choice->coefficients);
  const MergeInput as_weighed{whole.settings, whole.global, weighed ? *weighed : input.updates,
                              whole.round, whole.whole};
  const SiteState& old = input.global.adapter.sites[site];
  WEFT_TRY_ASSIGN(SiteMerge merge, round.strategy.MergeSite(as_weighed, survey, site));
  if (!merge.spectrum.defined()) {
    merge.spectrum = Spectrum(merge.factors);
    merge.whole_energy = EnergyFrom(merge.spectrum, 0);
  }
  SiteOutcome outcome;
  outcome.state = {old.site,
                   {{"A", merge.factors.A_RI.to(at::kFloat).contiguous()},
                    {"B", merge.factors.B_OR.to(at::kFloat).contiguous()}}};
  for (const NamedTensor& tensor : outcome.state.tensors) {
    if (!AllFinite(tensor.value)) {
      return InvalidArgument(Str("the merged ", tensor.name,
                                 " has values that are not finite in float32: the updates of this "
                                 "round are too large to be added up; bound them with "
                                 "cohort.update-norm-max"));
    }
  }
  LowRankSum change = Published(merge, outcome.state, old);
  const bool sum_is_ideal = !round.choice && merge.sum_is_mean;
  const bool only_new = !merge.adds_to_old || merge.kept >= old.Get("A").size(0) || IsZero(old);
  if (merge.has_target && merge.frame && sum_is_ideal && only_new) {
    CertifyInFrame(merge, SlotsFrom(outcome.state, merge.kept), old.site, outcome);
  } else {
    WEFT_TRY(CertifyBySums(merge, change, updates, sum_is_ideal, old, outcome, site));
  }
  for (const NamedTensor& tensor : merge.memory) {
    outcome.memory.push_back({old.site.path + ":" + tensor.name, tensor.value});
  }
  outcome.cut_energy = merge.cut_energy;
  outcome.whole_energy = merge.whole_energy;
  outcome.effective_rank = EffectiveRank(merge.spectrum);
  const at::Tensor leading = merge.spectrum.narrow(
      0, 0, std::min({merge.spectrum.size(0), merge.factors.A_RI.size(0), kEnergiesMax}));
  const at::Tensor energies = leading.square().cpu().contiguous();
  outcome.energies.assign(energies.const_data_ptr<double>(),
                          energies.const_data_ptr<double>() + energies.size(0));
  if (!merge.adds_to_old) change.Add({old.Get("A"), old.Get("B")}, -1);
  WEFT_TRY(AlignClients(round.strategy, input, site, change, outcome));
  return outcome;
}

Result<std::vector<SiteOutcome>> MergeSites(const Round& round, JobControl& control) {
  const MergeInput& input = round.input;
  std::optional<WeighedUpdates> weighed;
  if (round.choice) weighed.emplace(input.updates, round.choice->coefficients);
  const MergeInput as_weighed{input.settings, input.global, weighed ? *weighed : input.updates,
                              input.round, input.whole};
  WEFT_TRY_ASSIGN(const RoundSurvey survey, round.strategy.Survey(as_weighed));
  std::vector<std::optional<Result<SiteOutcome>>> results(input.global.adapter.sites.size());
  const std::string where = Str("[", round.strategy.name(), "] site ");
  std::atomic<size_t> merged{0};
  ForEachSite(results.size(), [&](size_t site, StackMemory& memory) {
    if (control.cancelled) return;
    const std::string& path = input.global.adapter.sites[site].site.path;
    results[site] =
        Guarded(where + path, [&] { return MergeOneSite(round, survey, site, memory); });
    control.progress = static_cast<float>(++merged) / static_cast<float>(results.size());
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

// One whole module of all clients: the mean Σ p_k θ_k in client order, or what the chosen weights
// make of the changes θ_k − what k was sent.
at::Tensor MergeModule(const std::vector<at::Tensor>& values, size_t module, const at::Tensor& old,
                       const MergeInput& input, const std::optional<ClientChoice>& choice) {
  const auto change = [&](size_t k) {
    return values[k] - input.StartOf(k).adapter.dense[module].value.to(at::kDouble);
  };
  if (choice && LooksAtElements(input.settings.robust)) {
    std::vector<at::Tensor> seen;
    for (size_t k = 0; k < values.size(); ++k) {
      const double share = choice->coefficients[k];
      if (share > 0) seen.push_back(change(k) * share);
    }
    return seen.empty() ? old : old + CombineElements(input.settings.robust, at::stack(seen));
  }
  at::Tensor merged = choice ? old.clone() : at::zeros_like(old);
  for (size_t k = 0; k < values.size(); ++k) {
    if (choice) {
      merged.add_(change(k), choice->coefficients[k]);
    } else {
      merged.add_(values[k], input.updates.weight(k));
    }
  }
  return merged;
}

// Whole modules have no factors, so there is nothing to merge but themselves, whatever the
// strategy.
Result<std::vector<NamedTensor>> MergeDense(const MergeInput& input,
                                            const std::optional<ClientChoice>& choice) {
  const std::vector<NamedTensor>& olds = input.global.adapter.dense;
  std::vector<NamedTensor> merged;
  if (olds.empty()) return merged;
  std::vector<std::vector<at::Tensor>> values(olds.size());
  for (size_t k = 0; k < input.updates.size(); ++k) {
    WEFT_TRY_ASSIGN(const std::vector<NamedTensor> own, input.updates.Dense(k));
    WEFT_CHECK(own.size() == olds.size(), own.size(), " of ", olds.size());
    for (size_t i = 0; i < own.size(); ++i) values[i].push_back(own[i].value.to(at::kDouble));
  }
  for (size_t i = 0; i < olds.size(); ++i) {
    const at::Tensor old = olds[i].value.to(at::kDouble);
    merged.push_back({olds[i].name, MergeModule(values[i], i, old, input, choice).to(at::kFloat)});
    if (AllFinite(merged.back().value)) continue;
    return InvalidArgument(
        Str("[merge] the merged ", olds[i].name, " has values that are not finite in float32"));
  }
  return merged;
}

bool AnyLate(const UpdateSource& updates) {
  for (size_t k = 0; k < updates.size(); ++k) {
    if (updates.older_global(k) != nullptr) return true;
  }
  return false;
}

// A late update counts less: c_k (1 + τ)^−a.
void DiscountLate(const UpdateSource& updates, ClientChoice& choice) {
  for (size_t k = 0; k < updates.size(); ++k) {
    if (updates.older_global(k) == nullptr) continue;
    const double share = updates.discount(k);
    choice.coefficients[k] *= share;
    std::string& reason = choice.reasons[k];
    reason +=
        Str(reason.empty() ? "" : "; ", "of round ", updates.plan(k).asked, ", counts by ", share);
  }
}

// How much each update counts where that is not its weight alone: by a robust rule, or because some
// come late.
Result<std::optional<ClientChoice>> Choose(const Strategy& strategy, const MergeInput& input,
                                           JobControl& control) {
  const RobustSettings& robust = input.settings.robust;
  std::optional<ClientChoice> choice;
  if (!ChoosesWeights(robust)) {
    if (!AnyLate(input.updates)) return choice;
    choice.emplace();
    choice->coefficients = WeightsOf(input.updates);
    choice->reasons.resize(input.updates.size());
    DiscountLate(input.updates, *choice);
    return choice;
  }
  size_t trusted = input.updates.size();
  for (size_t k = 0; k < input.updates.size(); ++k) {
    if (input.updates.plan(k).client.name == robust.trusted) trusted = k;
  }
  WEFT_TRY_ASSIGN(const at::Tensor gram, ChangeGram(strategy, input, control));
  choice = ChooseClients(robust, gram, WeightsOf(input.updates), trusted);
  DiscountLate(input.updates, *choice);
  return choice;
}

Certificate Certify(const std::vector<SiteOutcome>& outcomes, const MergeInput& input,
                    const std::optional<ClientChoice>& choice) {
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
    sum.rule += site.rule;
    if (sum.energies.size() < site.energies.size()) sum.energies.resize(site.energies.size(), 0);
    for (size_t i = 0; i < site.energies.size(); ++i) sum.energies[i] += site.energies[i];
    sum.cut_energy += site.cut_energy;
    sum.whole_energy += site.whole_energy;
    certificate.effective_rank += site.effective_rank / static_cast<double>(outcomes.size());
    certificate.rank = std::max(certificate.rank, rank);
  }
  certificate.target_norm = std::sqrt(sum.target);
  certificate.error_before_truncation = Ratio(sum.before_truncation, sum.target);
  certificate.error_published = Ratio(sum.published, sum.target);
  certificate.error_to_ideal = Ratio(sum.to_ideal, sum.ideal);
  certificate.error_rule = Ratio(sum.rule, sum.ideal);
  for (size_t i = 0; i < sum.energies.size(); ++i) {
    const double energy = sum.energies[i];
    certificate.energy_by_rank.emplace_back(Str(i + 1),
                                            energy == 0 ? 0 : energy / sum.whole_energy);
  }
  certificate.tail_energy = sum.cut_energy == 0 ? 0 : sum.cut_energy / sum.whole_energy;

  double change = 0;
  for (const SiteOutcome& site : outcomes) change += site.change;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    double alignment = 0;
    for (const SiteOutcome& site : outcomes) alignment += site.client_alignments[k];
    const std::string& name = input.updates.plan(k).client.name;
    const double norm = input.updates.update_norm(k);
    const double scale = norm * std::sqrt(change);
    certificate.client_norms.emplace_back(name, norm);
    certificate.client_cosines.emplace_back(name, scale == 0 ? 0 : alignment / scale);
    if (!choice) continue;
    certificate.client_coefficients.emplace_back(name, choice->coefficients[k]);
    if (!choice->reasons[k].empty()) {
      certificate.client_remarks.emplace_back(name, choice->reasons[k]);
    }
  }
  if (choice) certificate.notes = choice->notes;
  return certificate;
}

// The global adapter as plain factors, for the certificate of a rule that keeps another form.
Result<GlobalState> Lowered(const GlobalState& global) {
  WEFT_TRY_ASSIGN(const LowRankAdapter factors, Lower(global.adapter));
  GlobalState lowered = global;
  lowered.adapter = LoraFromFactors(global.init, factors);
  return lowered;
}

Status CheckAllFinite(const AdapterState& state) {
  for (const SiteState& site : state.sites) {
    for (const NamedTensor& tensor : site.tensors) {
      if (AllFinite(tensor.value)) continue;
      return InvalidArgument(Str("[merge] site ", site.site.path, ": the merged ", tensor.name,
                                 " has values that are not finite in float32"));
    }
  }
  return OkStatus();
}

// Merges in the method's own coordinates, and certifies that in lowered form.
Result<MergedRound> MergeOwn(const Strategy& strategy, const MergeInput& input,
                             JobControl& control) {
  WEFT_TRY_ASSIGN(const Adapter::Merged whole, strategy.MergeWhole(input));
  WEFT_TRY(CheckAllFinite(whole.state));
  WEFT_TRY_ASSIGN(const GlobalState lowered, Lowered(input.global));
  const MergeInput by_site{input.settings, lowered, input.updates, input.round, &whole};
  const std::optional<ClientChoice> no_choice;
  WEFT_TRY_ASSIGN(const std::vector<SiteOutcome> outcomes,
                  MergeSites({strategy, by_site, no_choice}, control));
  MergedRound merged;
  merged.certificate = Certify(outcomes, input, no_choice);
  merged.global = input.global;
  merged.global.adapter = whole.state;
  WEFT_TRY_ASSIGN(merged.global.adapter.dense, MergeDense(input, no_choice));
  return merged;
}

}  // namespace

Result<MergedRound> MergeRound(const Strategy& strategy, const MergeInput& asked,
                               JobControl& control) {
  if (asked.updates.size() == 0) return FailedPrecondition("[merge] a round without updates");
  return Guarded(Str("[", strategy.name(), "]"), [&]() -> Result<MergedRound> {
    if (strategy.traits().own_coordinates) return MergeOwn(strategy, asked, control);
    WEFT_TRY_ASSIGN(const std::optional<ClientChoice> choice, Choose(strategy, asked, control));
    StrategySettings settings = asked.settings;
    if (choice) settings.robust.byzantine = choice->byzantine;
    const MergeInput input{settings, asked.global, asked.updates, asked.round, asked.whole};
    WEFT_TRY_ASSIGN(std::vector<SiteOutcome> outcomes,
                    MergeSites({strategy, input, choice}, control));
    MergedRound merged;
    merged.certificate = Certify(outcomes, input, choice);
    merged.global.strategy = input.global.strategy;
    merged.global.init = input.global.init;
    merged.global.base_change = input.global.base_change;
    for (SiteOutcome& site : outcomes) {
      merged.global.adapter.sites.push_back(std::move(site.state));
      for (NamedTensor& tensor : site.memory) {
        merged.global.memory.push_back(std::move(tensor));
      }
    }
    merged.global.adapter.spec = UnitSpec(input.global.init, merged.global.adapter.sites);
    WEFT_TRY_ASSIGN(merged.global.adapter.dense, MergeDense(input, choice));
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
      WEFT_TRY_ASSIGN(const uint64_t members, MembersOf(header.spec));
      count = max_examples == 0 ? header.num_examples
                                : std::min(header.num_examples, max_examples * members);
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

Result<double> UpdateNorm(const AdapterState& update, const std::optional<AdapterState>& sent) {
  return Guarded("[update-norm]", [&]() -> Result<double> {
    const c10::InferenceMode no_autograd;
    if (sent && sent->sites.size() != update.sites.size()) {
      return InvalidArgument(
          Str("[update-norm] got ", update.sites.size(), " sites, sent were ", sent->sites.size()));
    }
    WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(update.spec.method));
    double square = 0;
    for (size_t i = 0; i < update.sites.size(); ++i) {
      LowRank change = method->Effective(update, i);
      if (sent) change = Difference(change, method->Effective(*sent, i));
      square += GramSquare(change);
    }
    return std::sqrt(square);
  });
}

}  // namespace weft
