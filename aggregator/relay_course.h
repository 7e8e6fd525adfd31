#pragma once
// RelayCourse: the course of a relay, which to its members is the aggregator and to the aggregator
// above one client. It is asked from above for a round: it adopts the version that the round starts
// from, has its members train from it, and what they changed is the answer, one update. Nothing is
// published here. The ledger holds every step, so a relay that was killed goes on with the round
// when it is asked again. Owned by the AggregatorNode.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "aggregator/course.h"

namespace weft {

/// What the aggregator above asks for. Whoever asks says through `control` that it is called off.
struct RelayedRound {
  RoundPlan plan;  // cohort holds the relay's entry alone
  Blob bundle;     // the global adapter
  std::string bundle_sha256;
  std::shared_ptr<JobControl> control;
};

struct RelayedUpdate {
  UpdateHeader header;  // run, round, client and base are who sends it's
  Blob payload;
};

struct RelayedEvaluation {
  RoundId version;
  Blob bundle;  // its adapter
  std::shared_ptr<JobControl> control;
};

class RelayCourse final : public Course {
 public:
  struct Hooks {
    std::function<void()> gathered;  // members are here: what they offer can be offered above
    std::function<void()> ended;     // the run is over here
  };
  RelayCourse(Office& office, Hooks hooks);

  [[nodiscard]] Status Start(RunPosition position) override;
  void Tick() override;
  void End(const std::string& state, const std::string& reason) override;
  [[nodiscard]] std::string NoRelays() const override;

  /// What the members who are here offer, as one.
  [[nodiscard]] Capabilities Offer() const;

  /// `done` is called once, with the update or with why there is none. A round asked before is
  /// called off.
  void Train(RelayedRound round, std::function<void(const Result<RelayedUpdate>&)> done);
  /// The members' report, as one: Σ loss·tokens / Σ tokens.
  void Evaluate(RelayedEvaluation evaluation, std::function<void(Result<EvalReport>)> done);

 private:
  struct Asked {
    RelayedRound round;
    std::function<void(const Result<RelayedUpdate>&)> done;
    AdapterSpec spec = {};  // of the update
    bool ready = false;     // the version that it starts from is adopted
  };
  struct Evaluation {
    RelayedEvaluation asked;
    std::function<void(Result<EvalReport>)> done;
  };

  void Next() override;
  void TooFew(const Status& why) override;
  /// Why this relay cannot take part in the round as it is asked.
  [[nodiscard]] Status CheckAsked(const RelayedRound& round);
  void Adopt();
  void OnAdopted(AdoptJob::Output adopted);
  void Begin();
  void OpenRound();
  void RunRound(RoundPlan plan, bool recorded);
  void OnMissed(const std::string& reason);
  void OnForwarded(const Result<ForwardJob::Output>& update);
  void OnForwardRecorded(const UpdateForwarded& event, const Blob& payload);
  [[nodiscard]] bool AnswerFromBefore();
  void Answer(const Result<RelayedUpdate>& update);
  void RemoveOld(RoundId version);
  void RemoveSpent();
  void StartEvaluation(Blob state);
  void OnEvaluated();
  void Report(Result<EvalReport> report);

  Hooks hooks_;
  std::optional<Asked> asked_;
  std::optional<Evaluation> evaluation_;
  bool announced_ = false;
  std::string bundle_sha256_;  // of the round that the members are at
  uint64_t work_ = 0;          // callbacks of what was called off are not heard
};

}  // namespace weft
