#include "aggregator/certificate_check.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "aggregator/jobs.h"
#include "aggregator/merge_work.h"
#include "aggregator/office.h"
#include "aggregator/strategies/state_block.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "common/crypto/digest.h"
#include "common/plan/certificate_diff.h"
#include "common/plan/json.h"
#include "common/tensor/torch.h"

namespace weft {
namespace {

// As many threads as the merge had: QR and SVD of a site sum in an order that depends on it. With
// others an adapter may still have the same bits, but what is rounding alone (an
// error_before_truncation of 1e-15) never has the same digits.
class TorchThreads {
 public:
  explicit TorchThreads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~TorchThreads() { at::set_num_threads(before_); }
  TorchThreads(const TorchThreads&) = delete;
  TorchThreads& operator=(const TorchThreads&) = delete;

 private:
  int before_;
};

// What to set where the round does not record it: the daemons' rule (aggregator/daemon.cc).
int ThreadsOf(const KeptRound& round, const Settings& settings) {
  const int64_t recorded = round.published.kernels.threads;
  return static_cast<int>(recorded > 0 ? recorded : std::max<int64_t>(settings.model.threads, 1));
}

std::string Describe(const MergeKernels& kernels) {
  return Str("torch ", kernels.torch, ", ", kernels.cpu, ", threads ", kernels.threads);
}

std::string EveryDigit(double value) { return nlohmann::json(value).dump(); }

// Everything that differs in one round.
class Differences {
 public:
  void Add(CertificateDifference difference) { found_.push_back(std::move(difference)); }
  void Compare(const std::string& field, const std::string& got, const std::string& wanted) {
    if (got != wanted) Add({.site = "", .field = field, .a = got, .b = wanted});
  }
  void Compare(const std::string& field, double got, double wanted) {
    const double larger = std::max(std::abs(got), std::abs(wanted));
    if (got == wanted || std::abs(got - wanted) <= kCertificateTolerance * larger) return;
    Add({.site = "", .field = field, .a = EveryDigit(got), .b = EveryDigit(wanted)});
  }

  /// The first of them, how many more there are, and where other kernels may be the reason.
  [[nodiscard]] Status Outcome(const MergeKernels& then, const MergeKernels& now) const {
    if (found_.empty()) return OkStatus();
    std::string text = weft::Describe(found_.front());
    if (found_.size() > 1) text += Str(" (and ", found_.size() - 1, " more)");
    if (then.threads > 0 && then != now) {
      text += Str("; it was merged with ", Describe(then), ", and recomputed with ", Describe(now),
                  ": other kernels round otherwise, so verify where those of the merge are");
    }
    return DataLoss(text);
  }

 private:
  std::vector<CertificateDifference> found_;
};

class Recheck {
 public:
  Recheck(const KeptRound& round, const BlobSource& blobs, const Settings& settings)
      : round_(round), blobs_(blobs), settings_(settings) {}

  Status Run() {
    WEFT_TRY(ReadState());
    for (const UpdateAccepted& update : round_.updates) {
      WEFT_TRY(Admit(update).Within(Str("client ", update.header.client)));
    }
    MergeJob job =
        MakeMergeJob(settings_, round_.opened.plan, round_.state_blob, std::move(updates_), blobs_);
    JobControl control;
    WEFT_TRY_ASSIGN(const MergeJob::Output merged, RunMerge(job, control));
    const RoundPublished& published = round_.published;
    differences_.Compare("adapter_sha256", published.adapter_sha256, merged.adapter_sha256);
    differences_.Compare("state", published.state.sha256, Sha256Hex(merged.state.span()));
    WEFT_TRY_ASSIGN(
        std::vector<CertificateDifference> numbers,
        CompareCertificates(round_.certificate, ToJson(merged.certificate), kCertificateTolerance));
    for (CertificateDifference& number : numbers) differences_.Add(std::move(number));
    return differences_.Outcome(published.kernels, merged.kernels);
  }

 private:
  Status ReadState() {
    WEFT_TRY_ASSIGN(state_, blobs_.ReadBlob(round_.state_blob));
    WEFT_TRY_ASSIGN(const GlobalState global, DecodeState(state_, settings_.strategy.name));
    for (const SiteState& site : global.adapter.sites) sites_.push_back(site.site);
    return OkStatus();
  }

  // What it was sent and how far it went from that are part of what the round says.
  Status Admit(const UpdateAccepted& update) {
    const ClientId& client = update.header.client;
    const RoundPlan& plan = round_.opened.plan;
    const auto asked = std::find_if(plan.cohort.begin(), plan.cohort.end(),
                                    [&](const ClientPlan& own) { return own.client == client; });
    JobControl control;
    Blob state = state_;
    if (asked->asked.number > 0) {
      WEFT_TRY_ASSIGN(state, blobs_.ReadBlob(StateBlobName(StartOf(asked->asked))));
    }
    WEFT_TRY_ASSIGN(CutJob::Output cut, RunCut(MakeCutJob(settings_, state, *asked), control));
    for (const RoundOpened::Bundle& bundle : round_.opened.bundles) {
      if (bundle.client != client) continue;
      differences_.Compare(Str("bundle.", client), bundle.sha256, Sha256Hex(cut.bundle.span()));
    }
    const AdmitJob job{.client = *asked,
                       .header = update.header,
                       .sites = sites_,
                       .blob = update.blob,
                       .bundle = std::move(cut.bundle),
                       .store = &blobs_,
                       .delta = plan.delta};
    WEFT_TRY_ASSIGN(const AdmitJob::Output admitted, RunAdmit(job, control));
    WEFT_TRY(admitted.verdict);
    differences_.Compare(Str("update_norm.", client), update.update_norm, admitted.update_norm);
    updates_.push_back(
        {.header = update.header, .blob = update.blob, .update_norm = admitted.update_norm});
    return OkStatus();
  }

  const KeptRound& round_;
  const BlobSource& blobs_;
  const Settings& settings_;
  Blob state_;
  std::vector<LinearSite> sites_;
  std::vector<SpooledUpdate> updates_;
  Differences differences_;
};

}  // namespace

Status CheckKeptRound(const KeptRound& round, const BlobSource& blobs) {
  WEFT_TRY_ASSIGN(const Settings settings,
                  SettingsFromToml(round.settings_toml, "the settings in the ledger"));
  const TorchThreads threads(ThreadsOf(round, settings));
  return Recheck(round, blobs, settings).Run();
}

}  // namespace weft
