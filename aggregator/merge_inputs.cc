#include "aggregator/merge_inputs.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "aggregator/office.h"
#include "aggregator/sent_adapter.h"
#include "aggregator/strategies/state_block.h"
#include "common/base/str.h"

namespace weft {
namespace {

std::vector<LinearSite> SitesOf(const AdapterState& state) {
  std::vector<LinearSite> sites;
  sites.reserve(state.sites.size());
  for (const SiteState& site : state.sites) sites.push_back(site.site);
  return sites;
}

Result<GlobalState> ReadState(const BlobSource* store, const std::string& blob,
                              const std::string& strategy) {
  WEFT_TRY_ASSIGN(const Blob bytes, store->ReadBlob(blob));
  return DecodeState(bytes, strategy);
}

// What was published when clients were asked, each version read once.
class Versions {
 public:
  Versions(const MergeJob& job, const GlobalState& newest) : job_(job), newest_(newest) {}

  /// Null for the newest one.
  Result<std::shared_ptr<const GlobalState>> Older(const ClientPlan& client) {
    if (client.asked.number == 0) return std::shared_ptr<const GlobalState>();
    const RoundId version = StartOf(client.asked);
    const auto [entry, is_new] = older_.try_emplace(version);
    if (is_new) {
      WEFT_TRY_ASSIGN(GlobalState state,
                      ReadState(job_.store, StateBlobName(version), job_.strategy.name));
      entry->second = std::make_shared<const GlobalState>(std::move(state));
    }
    return entry->second;
  }
  [[nodiscard]] const GlobalState& newest() const { return newest_; }

 private:
  const MergeJob& job_;
  const GlobalState& newest_;
  std::map<RoundId, std::shared_ptr<const GlobalState>> older_;
};

// (1 + τ)^−a of an update that is τ rounds late.
double Discount(const RoundPlan& plan, const ClientPlan& client) {
  if (client.asked.number == 0) return 1;
  const uint32_t late = plan.round.number - AskedIn(plan, client).number;
  return std::pow(1.0 + late, -plan.staleness_exponent);
}

Result<std::vector<ReceivedUpdate>> ReadSpool(const MergeJob& job, SentAdapters& sent,
                                              Versions& versions) {
  std::vector<ReceivedUpdate> updates;
  updates.reserve(job.updates.size());
  for (const SpooledUpdate& spooled : job.updates) {
    const auto plan = std::find_if(
        job.plan.cohort.begin(), job.plan.cohort.end(),
        [&](const ClientPlan& entry) { return entry.client == spooled.header.client; });
    if (plan == job.plan.cohort.end()) {
      return FailedPrecondition(Str("[merge] client ", spooled.header.client,
                                    " is not of the cohort of round ", job.plan.round));
    }
    WEFT_TRY_ASSIGN(Blob payload, job.store->ReadBlob(spooled.blob));
    updates.push_back({spooled.header, *plan, std::move(payload), spooled.update_norm,
                       [store = job.store, blob = spooled.blob](uint64_t offset, uint64_t length) {
                         return store->ReadPart(blob, offset, length);
                       }});
    ReceivedUpdate& update = updates.back();
    update.discount = Discount(job.plan, *plan);
    WEFT_TRY_ASSIGN(update.older_global, versions.Older(*plan));
    if (!job.plan.delta) continue;
    WEFT_TRY_ASSIGN(
        update.sent,
        sent.For(update.older_global ? *update.older_global : versions.newest(), *plan));
  }
  return updates;
}

std::vector<TensorLayout> DenseLayoutOf(const AdapterState& state) {
  std::vector<TensorLayout> layout;
  for (const NamedTensor& tensor : state.dense) {
    layout.push_back({tensor.name, tensor.value.sizes().vec()});
  }
  return layout;
}

}  // namespace

Result<MergeInputs> OpenMerge(const MergeJob& job) {
  MergeInputs inputs;
  WEFT_TRY_ASSIGN(inputs.strategy, FindStrategy(job.strategy.name));
  WEFT_TRY_ASSIGN(inputs.global, ReadState(job.store, job.state_blob, job.strategy.name));
  SentAdapters sent(*inputs.strategy);
  Versions versions(job, inputs.global);
  WEFT_TRY_ASSIGN(std::vector<ReceivedUpdate> received, ReadSpool(job, sent, versions));
  WEFT_TRY_ASSIGN(
      inputs.updates,
      SpooledUpdates::Open(std::move(received), SitesOf(inputs.global.adapter), job.weighting,
                           job.max_examples, DenseLayoutOf(inputs.global.adapter)));
  return inputs;
}

}  // namespace weft
