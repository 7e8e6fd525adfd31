#pragma once
// RunCourse: the course of a run of its own: gather members, make the initial adapter, evaluate a
// version, open a round, merge the next, end. Every step's outcome is in the ledger, so the course
// starts from wherever that says. Owned by the AggregatorNode.

#include <map>
#include <string>
#include <vector>

#include "aggregator/course.h"
#include "aggregator/state_repair.h"

namespace weft {

class RunCourse final : public Course {
 public:
  explicit RunCourse(Office& office);

  [[nodiscard]] Status Start(RunPosition position) override;

 private:
  void Next() override;
  void Recover();
  /// All rounds that train are done.
  [[nodiscard]] bool Trained() const;
  /// A posterior is asked for and not there yet.
  [[nodiscard]] bool Unmeasured() const;
  [[nodiscard]] Status CheckLaplace() const;
  void Initialise();
  void OnInitialised(Blob state, std::string adapter_sha256);
  void Evaluate();
  void OpenRound();
  void ResumeRound();
  void OnPublished();
  void OnMissed(const std::string& reason);
  void KeepLastState();
  void RemoveOldStates();
  [[nodiscard]] RoundPlan PlanNextRound(uint32_t attempt,
                                        const std::map<ClientId, UpdateAccepted>& accepted);
  void RunTraining(RoundStart start);

  StateRepair repair_;
  bool evaluated_ = false;                 // the newest version
  bool measured_ = false;                  // the final adapter has its posterior
  std::map<RoundId, std::string> states_;  // that are removed once they are old
};

}  // namespace weft
