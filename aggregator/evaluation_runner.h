#pragma once
// EvaluationRunner: has one published version evaluated by sites on their own validation rows and,
// where asked, by the aggregator on its own, and says which version is best so far. Owned by the
// AggregatorNode.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "aggregator/bundles.h"
#include "aggregator/downloads.h"
#include "aggregator/office.h"

namespace weft {

struct EvaluationStart {
  RoundId version;
  Blob state = {};
  std::vector<ClientId> evaluators = {};
  std::map<ClientId, EvalReport> reports = {};  // already in the ledger (a restart)
  std::optional<ServerEvaluated> here = {};     // ditto
};

class EvaluationRunner {
 public:
  EvaluationRunner(Office& office, Downloads& downloads, std::function<void()> done);

  void Run(EvaluationStart start);
  void Abandon();

  void OnJoined(const ClientId& client);
  void OnGone(const ClientId& client);
  void OnHeartbeat(const ClientId& client, const Heartbeat& heartbeat);
  /// kInvalidArgument: the report cannot be used.
  [[nodiscard]] Status OnReport(const ClientId& from, const EvalReport& report);
  void Tick();

  /// Of the version evaluated last.
  [[nodiscard]] const std::map<ClientId, EvalReport>& reports() const { return at_.reports; }

  /// The best version of all that were evaluated; known to the ledger.
  void SetBest(std::optional<BestRound> best) { best_ = std::move(best); }
  [[nodiscard]] const std::optional<BestRound>& best() const { return best_; }

 private:
  struct Asked {
    Nanos sent{0};
    std::optional<Nanos> away_since;
  };
  void AskAll();
  void Ask(const ClientId& client);
  void EvaluateHere();
  void FinishIfDone();
  void Conclude();
  [[nodiscard]] std::optional<BestRound> Judge() const;

  Office& office_;
  Downloads& downloads_;
  std::function<void()> done_;
  bool running_ = false;
  bool asked_all_ = false;
  bool waiting_here_ = false;
  EvaluationStart at_;
  Nanos began_{0};
  Nanos reported_{0};
  std::unique_ptr<Bundles> bundles_;
  std::map<ClientId, Asked> awaited_;
  std::optional<BestRound> best_;
};

}  // namespace weft
