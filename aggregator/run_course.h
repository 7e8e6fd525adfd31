#pragma once
// RunCourse: which step of the run comes next: gather members, make the initial adapter, evaluate
// a version, open a round, end. Every step's outcome is in the ledger, so the course starts from
// wherever that says. Owned by the AggregatorNode.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "aggregator/downloads.h"
#include "aggregator/evaluation_runner.h"
#include "aggregator/office.h"
#include "aggregator/publisher.h"
#include "aggregator/recovery.h"
#include "aggregator/round_runner.h"
#include "aggregator/state_repair.h"
#include "aggregator/uploads.h"

namespace weft {

class RunCourse {
 public:
  explicit RunCourse(Office& office);

  /// Takes the run up where the ledger left it.
  [[nodiscard]] Status Start(RunPosition position);

  void OnJoined(const ClientId& client, bool again);
  void OnGone(const ClientId& client, const std::string& why);
  void Tick();

  /// Ends the run: records it, tells the members. Once.
  void End(const std::string& state, const std::string& reason);
  [[nodiscard]] bool ended() const { return stage_ == Stage::kEnded; }
  [[nodiscard]] Nanos ended_at() const { return ended_at_; }
  /// What members are told once it has ended.
  [[nodiscard]] RunEnded Ending() const;

  RoundRunner& rounds() { return rounds_; }
  EvaluationRunner& evaluations() { return evaluations_; }
  Uploads& uploads() { return uploads_; }
  Downloads& downloads() { return downloads_; }

 private:
  enum class Stage { kRepairing, kGathering, kInitialising, kEvaluating, kTraining, kEnded };

  [[nodiscard]] Status CheckSameRun(const RunStarted& started) const;
  [[nodiscard]] Status CheckNothingWasLost() const;
  [[nodiscard]] RunStarted MakeRunStarted() const;
  void Recover();
  void SetGlobalRank(int64_t rank);
  void Next();
  void Gather(std::string purpose, size_t needed);
  [[nodiscard]] size_t MembersNeeded() const;
  /// All rounds that train are done.
  [[nodiscard]] bool Trained() const;
  /// A posterior is asked for and not there yet.
  [[nodiscard]] bool Unmeasured() const;
  [[nodiscard]] Status CheckLaplace() const;
  void TryGathered();
  void Initialise();
  void OnInitialised(Blob state, std::string adapter_sha256);
  void Evaluate();
  void OpenRound();
  void ResumeRound();
  void OnMissed(const std::string& reason);
  void KeepLastState();
  void RemoveOldStates();
  /// What a member is asked to train, by what it offers.
  [[nodiscard]] AdapterSpec PlanAdapter(const Capabilities& offer, RoundId round);
  [[nodiscard]] RoundPlan PlanNextRound(uint32_t attempt,
                                        const std::map<ClientId, UpdateAccepted>& accepted);
  [[nodiscard]] std::vector<ClientId> AbleToTrain() const;
  [[nodiscard]] std::vector<ClientId> AbleToEvaluate() const;
  [[nodiscard]] bool ReadState(RoundId version, Blob* state);
  void RunTraining(RoundStart start);
  void Notice(int64_t rank, const std::vector<std::string>& capped);

  Office& office_;
  Uploads uploads_;
  Downloads downloads_;
  Publisher publisher_;
  StateRepair repair_;
  RoundRunner rounds_;
  EvaluationRunner evaluations_;

  Stage stage_ = Stage::kGathering;
  RunPosition at_;          // as recovered; what is used up is taken out
  bool published_ = false;  // version 0 is in the ledger
  bool evaluated_ = false;  // the newest version
  bool measured_ = false;   // the final adapter has its posterior
  bool gathered_ = false;   // members are here for the next step
  bool resumed_ = false;
  std::string purpose_;  // what members are gathered for
  size_t needed_ = 0;    // how many it takes
  Nanos gathering_since_{0};
  Nanos reported_{0};
  uint32_t attempts_ = 0;  // at the next round
  uint32_t misses_ = 0;
  std::map<RoundId, std::string> states_;  // that are removed once they are old
  std::map<ClientId, RoundId> merged_;     // the last version that has the client's update
  std::vector<RunEvent> unrecorded_;       // membership before the run's first event
  std::set<int64_t> noticed_ranks_;
  RunEnded ending_;
  Nanos ended_at_{0};
};

}  // namespace weft
