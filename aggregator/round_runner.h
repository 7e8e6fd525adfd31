#pragma once
// RoundRunner: one try at a round: cuts and offers bundles, has updates pulled, checked and
// recorded, closes by the rules of OpenRound, merges and publishes. Owned by the AggregatorNode.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "aggregator/bundles.h"
#include "aggregator/downloads.h"
#include "aggregator/jobs.h"
#include "aggregator/office.h"
#include "aggregator/open_round.h"
#include "aggregator/publisher.h"
#include "aggregator/uploads.h"

namespace weft {

/// A round to run, or to go on with.
struct RoundStart {
  RoundPlan plan = {};
  uint32_t attempt = 1;
  Blob state = {};                                   // what the cohort starts from
  std::map<RoundId, Blob> older = {};                // what those of earlier rounds started from
  std::map<ClientId, UpdateAccepted> accepted = {};  // updates of this round already in the spool
  bool recorded = false;  // its round-opened event is in the ledger (a restart)
  /// A relay's: what it ends in is one update of this spec, and no version.
  std::optional<AdapterSpec> forward = std::nullopt;
};

class RoundRunner {
 public:
  struct Outcomes {
    std::function<void()> published;
    std::function<void()> measured;                         // the posterior is recorded
    std::function<void(const std::string& reason)> missed;  // the event is recorded
    /// A relay's round is merged; nothing is recorded yet.
    std::function<void(const Result<ForwardJob::Output>& update)> forwarded = {};
  };
  RoundRunner(Office& office, Uploads& uploads, Downloads& downloads, Publisher& publisher,
              Outcomes outcomes);

  void Run(RoundStart start);
  /// Updates accepted in the try that missed its quorum, for the next one.
  [[nodiscard]] const std::map<ClientId, UpdateAccepted>& accepted() const {
    return start_.accepted;
  }
  /// One whose update is in the version published last.
  struct Taken {
    RoundId asked;
    std::string sha256;
  };
  /// Norms of those updates, as a restart finds them.
  void SetNorms(std::vector<double> norms);
  [[nodiscard]] const std::map<ClientId, Taken>& taken_last() const { return taken_last_; }
  /// Blobs of the newest version's updates, which stay until the next one is there: should its
  /// state be damaged on disk, it can be merged again. As a restart finds them.
  void SetMerged(std::vector<std::string> blobs) { merged_blobs_ = std::move(blobs); }
  /// Removes them: no version will follow.
  void ForgetMerged();
  /// Who was asked in earlier rounds and goes on, to be counted in the next.
  [[nodiscard]] const std::map<ClientId, ClientPlan>& carried() const { return carried_; }
  /// As a restart finds them.
  void SetCarried(std::map<ClientId, ClientPlan> carried) { carried_ = std::move(carried); }
  /// The round is forgotten as it stands (the run ends).
  void Abandon();
  /// The round is called off, as one that misses its quorum is; one that is merged already goes to
  /// its end.
  void CallOff(const std::string& reason);
  [[nodiscard]] RoundId merged_last() const { return merged_last_; }
  [[nodiscard]] bool idle() const { return stage_ == Stage::kIdle; }
  /// A relay's, whose updates are of no more use: none is accepted for the next round.
  void ForgetAccepted() { start_.accepted.clear(); }

  void OnJoined(const ClientId& client);
  void OnGone(const ClientId& client, const std::string& why);
  void OnHeartbeat(const ClientId& client, const Heartbeat& heartbeat);
  void OnUpdateOffer(const ClientId& from, const UpdateOffer& offer);
  void OnRoundFailed(const ClientId& from, const RoundFailed& failed);
  void OnUploaded(const ClientId& client, Result<Upload> upload);
  void Tick();

 private:
  enum class Stage { kIdle, kCutting, kCollecting, kMerging };
  /// What is in memory only about one member of the cohort.
  struct Desk {
    Nanos offered{0};
    bool got_bundle = false;
    bool checking = false;     // its update is in AdmitJob
    bool recorded = false;     // its update's acceptance is on disk: it may be told
    std::string gone_because;  // of its last absence
  };

  void Cut();
  void RecordOpening();
  void StartCollecting();
  void SeatAccepted();
  void Offer(const ClientId& client);
  void AnswerStray(const ClientId& from, const UpdateOffer& offer);
  void TellAccepted(const ClientId& to, RoundId asked);
  void Verdict(const ClientId& to, RoundId round, const Status& status);
  void NoteBundleSent(const ClientId& client);
  void Admit(const ClientId& client, const Upload& upload);
  void Accept(const ClientId& client, const Upload& upload, double update_norm, double admit_s);
  void Refuse(const ClientId& client, const Status& why);
  void Drop(const ClientId& client, Standing standing, const std::string& reason);
  void Judge();
  void Close();
  void Miss();
  /// `told` is what those hear who are at work; `then` runs once the miss is recorded.
  void EndMissed(const std::string& told, const std::string& reason, std::function<void()> then);
  void Merge();
  void Forward();
  void NoteTaken();
  void Fit();
  void RecordPosterior(FitJob::Output fitted);
  void SendHome(const std::string& reason);
  /// Of the round that is over; `keep_merged` leaves the updates that were accepted.
  void RemoveSpool(bool keep_merged);
  [[nodiscard]] std::string PhaseOf(const ClientId& client) const;
  [[nodiscard]] RoundId Asked(const Seat& seat) const { return AskedIn(round_->plan(), seat.plan); }
  [[nodiscard]] bool MayComeLate(const Seat& seat) const;

  Office& office_;
  Uploads& uploads_;
  Downloads& downloads_;
  Publisher& publisher_;
  Outcomes outcomes_;

  Stage stage_ = Stage::kIdle;
  std::optional<OpenRound> round_;
  RoundStart start_;
  std::unique_ptr<Bundles> bundles_;
  std::map<ClientId, Desk> desks_;
  std::set<ClientId> damaged_;  // accepted before a restart, and no longer what was accepted
  std::map<ClientId, Taken> taken_last_;
  RoundId merged_last_;  // the last round that was merged
  std::vector<std::string> merged_blobs_;
  double median_norm_ = 0;  // of those updates; 0: of none
  std::map<ClientId, ClientPlan> carried_;
  std::set<ClientId> counted_late_;  // in the round now closed
  Nanos reported_{0};                // when the log last said who is awaited
};

}  // namespace weft
