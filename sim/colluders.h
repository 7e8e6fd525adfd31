#pragma once
// Colluders: attackers that know what all of them would honestly have shipped. Each computes it
// from what itself was sent and on the others' rows, so a job stays a function of its own data;
// equal work is done once, by whoever needs it first.

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "client/jobs.h"
#include "common/adapters/adapter_state.h"

namespace weft::sim {

using Training = std::function<Result<TrainJob::Output>(const TrainJob& job, JobControl& control)>;

/// An honest client's output and, read back from its payload, its adapter on the CPU.
struct HonestUpdate {
  TrainJob::Output output;
  AdapterState adapter;
};

/// The adapter in an update's payload. kInvalidArgument if there is none.
[[nodiscard]] Result<HonestUpdate> ReadBack(TrainJob::Output output);

/// Any thread, several at a time.
class Colluders {
 public:
  /// By name; `honest` trains on the rows of the client that the job names.
  Colluders(std::vector<ClientId> names, Training honest)
      : names_(std::move(names)), honest_(std::move(honest)) {}

  /// What each colluder, by name, would ship if it were asked this job at this job's rank. They go
  /// without the state kept from earlier rounds (moments of train.keep-optimizer, the place in rows
  /// taken in file order), which only the site itself has. The first error of their training.
  [[nodiscard]] Result<std::vector<std::shared_ptr<const HonestUpdate>>> Updates(
      const TrainJob& job, JobControl& control);

  /// Trainings done so far.
  [[nodiscard]] uint64_t trained() const;

 private:
  struct Entry {
    TrainJob job;
    bool claimed = false;  // somebody is at it
    std::shared_ptr<const HonestUpdate> update;
  };
  class Claim;

  [[nodiscard]] std::vector<std::shared_ptr<Entry>> EntriesOf(const TrainJob& job);
  /// Work nobody is at, starting with this client's own; waits while all that is missing is in
  /// others' hands. Null: nothing is missing.
  [[nodiscard]] Entry* Next(const std::vector<std::shared_ptr<Entry>>& entries,
                            const ClientId& own);

  const std::vector<ClientId> names_;
  const Training honest_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Entry>> entries_;  // of the newest round
  uint64_t trained_ = 0;
};

}  // namespace weft::sim
