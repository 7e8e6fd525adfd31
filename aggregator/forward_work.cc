#include "aggregator/forward_work.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "aggregator/merge_inputs.h"
#include "aggregator/strategies/site_threads.h"
#include "aggregator/strategies/state_block.h"
#include "common/adapters/adapter.h"
#include "common/adapters/change.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/codec/precision.h"
#include "common/crypto/digest.h"
#include "common/tensor/guard.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

// One site of the update, in float64: squares, so that sites add up.
struct SiteChange {
  LowRank factors;  // of the spec's rank, what lies beyond the sum's own is zero
  double whole = 0;
  double cut = 0;
};

Result<LowRankSum> SumOfChanges(const MergeInputs& inputs, size_t site) {
  const SpooledUpdates& updates = *inputs.updates;
  WEFT_TRY_ASSIGN(LowRankSum sum, updates.Mean(site));
  for (size_t k = 0; k < updates.size(); ++k) {
    WEFT_TRY_ASSIGN(const std::optional<LowRank> sent,
                    inputs.strategy->Sent(inputs.global, site, updates.plan(k)));
    if (sent) sum.Add(*sent, -updates.weight(k));
  }
  return sum;
}

// In factors of `rank`, of which the first `most` are used.
Result<SiteChange> ChangeOf(const MergeInputs& inputs, size_t site, int64_t rank, int64_t most) {
  const LinearSite& layer = inputs.global.adapter.sites[site].site;
  WEFT_TRY_ASSIGN(const LowRankSum sum, SumOfChanges(inputs, site));
  const Recompressed svd =
      Recompress(sum, [&](const at::Tensor& spectrum) { return std::min(most, spectrum.size(0)); });
  const int64_t kept = svd.S_Q.size(0);
  SiteChange change;
  change.whole = EnergyFrom(svd.spectrum, 0);
  change.cut = EnergyFrom(svd.spectrum, kept);
  change.factors = {at::zeros({rank, layer.in}, at::kDouble),
                    at::zeros({layer.out, rank}, at::kDouble)};
  change.factors.A_RI.narrow(0, 0, kept).copy_(svd.V_IQ.t());
  change.factors.B_OR.narrow(1, 0, kept).copy_(svd.U_OQ * svd.S_Q);
  // A change of nothing is a change: only an adapter that is zero on both sides was never trained.
  if (change.whole == 0) change.factors.A_RI[0][0] = 1;
  return change;
}

Result<std::vector<SiteChange>> ChangesOf(const MergeInputs& inputs, const ForwardJob& job) {
  const std::vector<SiteState>& sites = inputs.global.adapter.sites;
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(job.spec.method));
  std::vector<SiteChange> changes(sites.size());
  std::vector<Status> statuses(sites.size());
  ForEachSite(sites.size(), [&](size_t site, StackMemory&) {
    const int64_t rank = method->FactorRank(job.spec, sites[site].site);
    const int64_t most = job.rank == 0 ? rank : std::min(job.rank, rank);
    Result<SiteChange> change = ChangeOf(inputs, site, rank, most);
    if (change.ok()) {
      changes[site] = std::move(*change);
    } else {
      statuses[site] = change.status();
    }
  });
  for (const Status& status : statuses) WEFT_TRY(status);
  return changes;
}

// Σ p_k of the clients' whole modules, in float64.
Result<std::vector<NamedTensor>> MeanOfDense(const SpooledUpdates& updates) {
  std::vector<NamedTensor> mean;
  for (size_t k = 0; k < updates.size(); ++k) {
    WEFT_TRY_ASSIGN(const std::vector<NamedTensor> dense, updates.Dense(k));
    if (mean.empty()) {
      for (const NamedTensor& tensor : dense) {
        mean.push_back({tensor.name, at::zeros_like(tensor.value, at::kDouble)});
      }
    }
    for (size_t i = 0; i < dense.size(); ++i) {
      mean[i].value.add_(dense[i].value.to(at::kDouble), updates.weight(k));
    }
  }
  for (NamedTensor& tensor : mean) tensor.value = tensor.value.to(at::kFloat);
  return mean;
}

AdapterState StateOf(const AdapterSpec& spec, const GlobalState& global,
                     const std::vector<SiteChange>& changes) {
  AdapterState state;
  state.spec = spec;
  for (size_t i = 0; i < changes.size(); ++i) {
    const LowRank& factors = changes[i].factors;
    state.sites.push_back(
        {global.adapter.sites[i].site,
         {{"A", factors.A_RI.to(at::kFloat)}, {"B", factors.B_OR.to(at::kFloat).contiguous()}}});
  }
  return state;
}

// What cutting and coding took, over the whole.
Result<double> ErrorOf(const std::vector<SiteChange>& changes, const Blob& payload) {
  WEFT_TRY_ASSIGN(const AdapterBundle received, DecodeBundle(payload, at::kCPU));
  double whole = 0;
  double lost = 0;
  for (size_t i = 0; i < changes.size(); ++i) {
    const SiteState& got = received.adapter->sites[i];
    const LowRank coded{got.Get("A").to(at::kDouble), got.Get("B").to(at::kDouble)};
    whole += changes[i].whole;
    lost += changes[i].cut + GramSquare(Difference(changes[i].factors, coded));
  }
  if (!std::isfinite(whole)) {
    return InvalidArgument("what the members changed is no finite number when it is added up");
  }
  return whole == 0 ? 0 : std::sqrt(lost / whole);
}

// As one client that had all the members' rows would say it.
Result<UpdateHeader> HeaderOf(const ForwardJob& job, const Blob& payload, double error) {
  UpdateHeader header;
  header.spec = job.spec;
  header.codec = job.round.plan.codec;
  double loss = 0;
  uint64_t clients = 0;
  for (const SpooledUpdate& update : job.round.updates) {
    const UpdateHeader& own = update.header;
    WEFT_TRY_ASSIGN(const uint64_t members, MembersOf(own.spec));
    const uint64_t most = job.round.max_examples * members;
    header.num_examples += most == 0 ? own.num_examples : std::min(own.num_examples, most);
    clients += members;
    header.label_tokens += own.label_tokens;
    header.steps += own.steps;
    loss += own.train_loss * static_cast<double>(own.label_tokens);
  }
  header.train_loss = loss / static_cast<double>(header.label_tokens);
  header.metrics = {{"members", static_cast<double>(clients)}, {"relay_error", error}};
  header.payload_bytes = payload.size();
  header.payload_sha256 = Sha256Hex(payload.span());
  return header;
}

}  // namespace

Result<AdoptJob::Output> RunAdopt(const AdoptJob& job, JobControl&) {
  return Guarded("[adopt]", [&]() -> Result<AdoptJob::Output> {
    WEFT_TRY_ASSIGN(AdapterBundle bundle, DecodeBundle(job.bundle, at::kCPU));
    if (bundle.adapter || !bundle.frozen || bundle.frozen->spec.method != "lora") {
      return InvalidArgument("what the aggregator above sent is not a whole global adapter");
    }
    GlobalState global{job.strategy, job.adapter, std::move(*bundle.frozen),
                       std::move(bundle.base_change)};
    const std::vector<SiteState>& sites = global.adapter.sites;
    if (sites.size() != job.sites.size()) {
      return FailedPrecondition(Str("the global adapter has ", sites.size(),
                                    " layers, [adapter] here chooses ", job.sites.size()));
    }
    for (size_t i = 0; i < sites.size(); ++i) {
      if (sites[i].site != job.sites[i]) {
        return FailedPrecondition(Str("the global adapter's layer ", i, " is ", sites[i].site.path,
                                      ", [adapter] here chooses ", job.sites[i].path));
      }
      if (const double scaling = ScalingFor(global.adapter.spec, sites[i].site.path);
          scaling != 1) {
        return InvalidArgument(Str("site ", sites[i].site.path,
                                   ": the global adapter's scaling is ", scaling, ", wanted 1"));
      }
    }
    WEFT_TRY_ASSIGN(EncodedState state, EncodeState(global));
    return AdoptJob::Output{std::move(state.bytes), std::move(state.adapter_sha256)};
  });
}

Result<ForwardJob::Output> RunForward(const ForwardJob& job, JobControl&) {
  const auto began = std::chrono::steady_clock::now();
  return Guarded("[forward]", [&]() -> Result<ForwardJob::Output> {
    // As the aggregator above weighs: it goes on from the sum.
    WEFT_TRY_ASSIGN(const RelayTerms terms, TermsOf(job.spec));
    MergeJob round = job.round;
    round.weighting = terms.weighting;
    WEFT_TRY_ASSIGN(const MergeInputs inputs, OpenMerge(round));
    WEFT_TRY_ASSIGN(const std::vector<SiteChange> changes, ChangesOf(inputs, job));
    AdapterState update = StateOf(job.spec, inputs.global, changes);
    WEFT_TRY_ASSIGN(update.dense, MeanOfDense(*inputs.updates));
    WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(job.round.plan.codec));
    const TensorForm form =
        job.round.plan.compress ? TensorForm::kCompressed : TensorForm::kShortest;
    ForwardJob::Output output;
    WEFT_TRY_ASSIGN(output.payload, EncodeUpdate(update, /*delta=*/false, *codec, form));
    WEFT_TRY_ASSIGN(output.error, ErrorOf(changes, output.payload));
    WEFT_TRY_ASSIGN(output.header, HeaderOf(job, output.payload, output.error));
    output.merge_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return output;
  });
}

}  // namespace weft
