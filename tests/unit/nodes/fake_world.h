#pragma once
// FakeWorld: an aggregator and clients on a manual clock, joined by queues that carry encoded
// frames, with work that runs inline. Deterministic; a test kills, cuts off and restarts nodes at
// will. Jobs work on plain strings whose content depends on all that should decide it (seed, state,
// rank, client, round, the updates in order) and on nothing else.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "aggregator/aggregator_node.h"
#include "aggregator/jobs.h"
#include "client/client_node.h"
#include "client/jobs.h"
#include "common/base/random.h"
#include "common/runtime/env.h"
#include "common/runtime/memory_store.h"
#include "common/runtime/run_events.h"
#include "common/wire/message_codec.h"

namespace weft::testing {

class ManualClock : public Clock {
 public:
  [[nodiscard]] Nanos Now() const override { return now_; }
  [[nodiscard]] int64_t WallMicros() const override { return now_.count() / 1000; }
  TimerId At(Nanos when, std::function<void()> wake) override {
    const TimerId id{next_++};
    timers_[{std::max(when, now_), id.value}] = std::move(wake);
    return id;
  }
  void Cancel(TimerId timer) override {
    std::erase_if(timers_, [&](const auto& entry) { return entry.first.second == timer.value; });
  }
  /// Goes to the next timer and fires it; false if there is none before `limit`.
  bool Step(Nanos limit) {
    if (timers_.empty() || timers_.begin()->first.first > limit) return false;
    now_ = timers_.begin()->first.first;
    const std::function<void()> wake = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    wake();
    return true;
  }

 private:
  Nanos now_ = std::chrono::seconds(1000);
  uint64_t next_ = 1;
  std::map<std::pair<Nanos, uint64_t>, std::function<void()>> timers_;
};

/// One write asked of a store, to be repeated on another.
using StoreWrite = std::function<void(Store& store)>;

/// A MemoryStore that remembers every write, so that a test can have the disk as it was after any
/// of them.
class RecordingStore : public Store {
 public:
  RecordingStore(std::function<void(std::function<void()>)> post, std::function<int64_t()> wall_us)
      : post_(post),
        store_({.post = std::move(post), .wall_us = std::move(wall_us), .fault = {}}) {}

  void Append(std::vector<EventDraft> events, Done done) override {
    writes.push_back([events](Store& to) { to.Append(events, [](const Status&) {}); });
    store_.Append(std::move(events), Guarded(std::move(done)));
  }
  void WriteBlob(std::string name, Blob bytes, Done done) override {
    if (const Status fault = Fault(name); !fault.ok()) return Later(std::move(done), fault);
    writes.push_back([=](Store& to) { to.WriteBlob(name, bytes, [](const Status&) {}); });
    store_.WriteBlob(std::move(name), std::move(bytes), Guarded(std::move(done)));
  }
  void WritePartial(std::string name, uint64_t offset, Blob bytes, Done done) override {
    if (const Status fault = Fault(name); !fault.ok()) return Later(std::move(done), fault);
    writes.push_back(
        [=](Store& to) { to.WritePartial(name, offset, bytes, [](const Status&) {}); });
    store_.WritePartial(std::move(name), offset, std::move(bytes), Guarded(std::move(done)));
  }
  void SealPartial(std::string name, uint64_t bytes, std::string sha256, Done done) override {
    writes.push_back([=](Store& to) { to.SealPartial(name, bytes, sha256, [](const Status&) {}); });
    store_.SealPartial(std::move(name), bytes, std::move(sha256), Guarded(std::move(done)));
  }
  [[nodiscard]] uint64_t PartialBytes(const std::string& name) const override {
    return store_.PartialBytes(name);
  }
  void RemoveBlob(std::string name, Done done) override {
    writes.push_back([=](Store& to) { to.RemoveBlob(name, [](const Status&) {}); });
    store_.RemoveBlob(std::move(name), Guarded(std::move(done)));
  }
  [[nodiscard]] Result<Blob> ReadBlob(const std::string& name) const override {
    return store_.ReadBlob(name);
  }
  [[nodiscard]] std::vector<std::string> ListBlobs(const std::string& prefix) const override {
    return store_.ListBlobs(prefix);
  }
  [[nodiscard]] Status EachEvent(const TakeEvent& take) const override {
    return store_.EachEvent(take);
  }

  std::vector<StoreWrite> writes;
  std::weak_ptr<bool> owner;  // the process that uses it; a dead one hears of nothing
  /// Blobs whose name has this prefix cannot be written.
  std::string full_for;

 private:
  [[nodiscard]] Done Guarded(Done done) const {
    return [done = std::move(done), owner = owner](Status status) {
      if (!owner.expired()) done(std::move(status));
    };
  }
  [[nodiscard]] Status Fault(const std::string& name) const {
    if (full_for.empty() || !name.starts_with(full_for)) return OkStatus();
    return ResourceExhausted("[store] no space left on device");
  }
  void Later(Done done, Status status) {
    post_([done = Guarded(std::move(done)), status] { done(status); });
  }

  std::function<void(std::function<void()>)> post_;
  MemoryStore store_;
};

/// Everything one test needs; see the members' comments.
class FakeWorld {
 public:
  explicit FakeWorld(Settings settings);
  ~FakeWorld();

  // ---- nodes ----
  /// Starts the aggregator, on `disk` where one is given.
  Status StartAggregator();
  /// The process is gone from one moment to the next; its disk stays.
  void KillAggregator();
  void StartClient(const std::string& name, int64_t rank, uint64_t examples = 10);
  void KillClient(const std::string& name);
  [[nodiscard]] bool AggregatorRuns() const { return aggregator_ != nullptr; }
  AggregatorNode& aggregator();
  ClientNode& client(const std::string& name);

  // ---- time ----
  /// Runs until nothing is queued, then timer after timer, until `done` or `limit_s` is over;
  /// returns done().
  bool RunUntil(const std::function<bool()>& done, double limit_s = 3600);
  bool RunToEnd(double limit_s = 36000);
  void RunFor(double seconds) {
    (void)RunUntil([] { return false; }, seconds);
  }

  // ---- what happened ----
  [[nodiscard]] std::vector<LedgerEvent> Ledger() const;
  template <typename E>
  [[nodiscard]] std::vector<E> Events() const {
    std::vector<E> found;
    for (const LedgerEvent& row : Ledger()) {
      if (row.kind == E::kKind) found.push_back(FromEvent<E>(row).value());
    }
    return found;
  }
  /// The adapter's hash after each version.
  [[nodiscard]] std::vector<std::string> Hashes() const;

  // ---- interference ----
  /// Asked about every message; false: it is lost. `to_aggregator`: its direction.
  std::function<bool(const ClientId& client, bool to_aggregator, const Message& message)> filter;
  /// A message as if the client had sent it.
  void Inject(const std::string& client, const Message& message, const Blob& chunk = {});
  void InjectRaw(const std::string& client, Blob control);
  /// What a train job does instead of training well; ok: nothing. Told client and round.
  std::function<Status(const TrainJob& job)> on_train;
  std::function<Status(const AdmitJob& job)> on_admit;
  /// What an evaluation finds; empty: a loss that falls with the version.
  std::function<Result<EvalReport>(const ClientEvaluateJob& job)> on_evaluate;
  /// The aggregator evaluates too, with this result.
  std::function<Result<ServerEvaluateJob::Output>(const ServerEvaluateJob& job)> on_evaluate_here;
  /// Results of train jobs of these clients are held back until ReleaseTraining.
  std::set<std::string> hold_training;
  void ReleaseTraining();
  [[nodiscard]] int trained(const std::string& client) const;

  // ---- parts ----
  Settings settings;
  BaseDescription base;
  ManualClock clock;
  size_t payload_bytes = 100;      // of an update
  bool local_state_counts = true;  // what a client trains depends on what its last round left
  std::shared_ptr<RecordingStore> disk;
  std::map<std::string, std::shared_ptr<RecordingStore>> client_disks;
  std::shared_ptr<log::MemorySink> log_lines = std::make_shared<log::MemorySink>();
  std::vector<std::pair<std::string, Message>> sent_to;  // messages to clients, in order
  std::map<std::string, std::string> cut;                // peers cut by the aggregator, and why
  std::function<std::optional<std::string>()> stop_requested;
  WorkTable table;

  [[nodiscard]] std::shared_ptr<RecordingStore> NewDisk();

 private:
  struct Parts;
  struct AggregatorProcess;
  struct ClientProcess;
  class Link;
  class QueuedExecutor;

  void Post(std::function<void()> task) { queue_.push_back(std::move(task)); }
  void Deliver(const ClientId& client, bool to_aggregator, Frames frames);
  void RegisterWork();

  std::deque<std::function<void()>> queue_;
  std::vector<std::function<void()>> held_;
  std::map<std::string, int> trained_;
  std::unique_ptr<AggregatorProcess> aggregator_;
  std::map<std::string, std::unique_ptr<ClientProcess>> clients_;
};

}  // namespace weft::testing
