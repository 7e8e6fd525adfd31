#pragma once
// Course: what every order of a run's steps has in common, whoever decides the next version: the
// members are gathered, a cohort of them is planned for, the end is recorded and told. Owned by the
// AggregatorNode.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "aggregator/downloads.h"
#include "aggregator/evaluation_runner.h"
#include "aggregator/office.h"
#include "aggregator/publisher.h"
#include "aggregator/recovery.h"
#include "aggregator/round_runner.h"
#include "aggregator/uploads.h"

namespace weft {

class Course {
 public:
  virtual ~Course() = default;
  Course(const Course&) = delete;
  Course& operator=(const Course&) = delete;

  /// Takes the run up where the ledger left it.
  [[nodiscard]] virtual Status Start(RunPosition position) = 0;

  void OnJoined(const ClientId& client, bool again);
  void OnGone(const ClientId& client, const std::string& why);
  virtual void Tick();

  /// Ends the run: records it, tells the members. Once.
  virtual void End(const std::string& state, const std::string& reason);
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] Nanos ended_at() const { return ended_at_; }
  /// What members are told once it has ended.
  [[nodiscard]] RunEnded Ending() const { return ending_; }

  /// Why a relay may not join this run; empty: it may.
  [[nodiscard]] virtual std::string NoRelays() const;

  RoundRunner& rounds() { return rounds_; }
  EvaluationRunner& evaluations() { return evaluations_; }
  Uploads& uploads() { return uploads_; }
  Downloads& downloads() { return downloads_; }

 protected:
  Course(Office& office, RoundRunner::Outcomes outcomes, std::function<void()> evaluated);

  /// The step that is next, now that the last one is done.
  virtual void Next() = 0;

  // ---- start ----
  /// Everything that any course takes from the ledger and the settings, checked against each other:
  /// layers, the run, members to expect, where it stands. A global adapter that the ledger does not
  /// know has rank 0.
  [[nodiscard]] Status TakeUp(RunPosition position);
  /// The ledger's run was completed: there is nothing left to do.
  void StayCompleted();
  [[nodiscard]] RunStarted MakeRunStarted() const;
  /// The daemon goes on with a run that is in the ledger.
  void RecordResumed();
  void SetGlobalRank(int64_t rank);

  // ---- members ----
  /// Waits until so many are here, and those that the run should wait for; then Next(), gathered_.
  void Gather(std::string purpose, size_t needed);
  [[nodiscard]] size_t MembersNeeded() const;
  void TryGathered();
  /// So few came in time that the step cannot be taken. The run is given up unless overridden.
  virtual void TooFew(const Status& why) { office_.GiveUp(why); }
  [[nodiscard]] std::vector<ClientId> AbleToTrain() const;
  [[nodiscard]] std::vector<ClientId> AbleToEvaluate() const;

  // ---- rounds ----
  /// What a member is asked to train in that round, by what it offers.
  [[nodiscard]] AdapterSpec PlanAdapter(const Capabilities& offer, const RoundPlan& plan);
  /// Draws the round's cohort: those whose update is here or under way, and others.
  void FillCohort(const CohortSettings& cohort, uint32_t attempt,
                  const std::map<ClientId, UpdateAccepted>& accepted, RoundPlan& plan);
  /// kFailedPrecondition unless enough members train in the round.
  [[nodiscard]] Status CheckCohort(const RoundPlan& plan) const;
  /// On record, then from the disk.
  void RemoveStates(const std::vector<std::string>& blobs, const std::string& reason);
  /// False: the run is given up.
  [[nodiscard]] bool ReadState(RoundId version, Blob* state);

  Office& office_;
  Uploads uploads_;
  Downloads downloads_;
  Publisher publisher_;
  RoundRunner rounds_;
  EvaluationRunner evaluations_;

  RunPosition at_;          // as recovered; what is used up is taken out
  bool published_ = false;  // the first version is in the ledger
  bool gathered_ = false;   // members are here for the next step
  bool resumed_ = false;
  uint32_t attempts_ = 0;  // at the next round
  uint32_t misses_ = 0;
  std::map<ClientId, RoundId> merged_;  // the last version that has the client's update
  std::vector<RunEvent> unrecorded_;    // membership before the run's first event
  RunEnded ending_;
  bool ended_ = false;

 private:
  /// The layers that carry the adapter, and a rank that is one.
  [[nodiscard]] Status MatchLayers();
  [[nodiscard]] Status CheckSameRun(const RunStarted& started) const;
  [[nodiscard]] Status CheckNothingWasLost() const;
  void Notice(int64_t rank, const std::vector<std::string>& capped);

  bool gathering_ = false;
  std::string purpose_;  // what members are gathered for
  size_t needed_ = 0;    // how many it takes
  Nanos gathering_since_{0};
  Nanos reported_{0};
  std::set<int64_t> noticed_ranks_;
  Nanos ended_at_{0};
};

}  // namespace weft
