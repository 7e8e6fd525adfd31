#pragma once
// Office: what the parts of the aggregator share: the run's facts, and the ways to send, to record
// and to give up. Owned by the AggregatorNode; all calls come from its loop.

#include <functional>
#include <string>
#include <vector>

#include "aggregator/members.h"
#include "aggregator/options.h"
#include "common/runtime/env.h"
#include "common/runtime/run_events.h"
#include "common/wire/messages.h"

namespace weft {

class Strategy;

class Office {
 public:
  Office(Env env_in, AggregatorOptions options_in);
  Office(const Office&) = delete;
  Office& operator=(const Office&) = delete;

  Env env;
  const AggregatorOptions options;
  Members members;

  RunId run;
  AdapterSpec global;             // spec of the global adapter; rank 0 until it is decided
  std::vector<LinearSite> sites;  // the layers that carry it
  RoundId version;                // newest published
  std::string state_blob;         // its state

  /// Sends a message; a peer that is gone is no error, its absence is noticed elsewhere. False if
  /// its queue is full.
  bool Send(const ClientId& to, const Message& message, const Blob& chunk = {});

  /// Appends events; `then` runs once they are durable. Ends the run if they cannot be written.
  void Record(std::vector<RunEvent> events, std::function<void()> then = {});

  /// The run cannot go on: the first reason counts. `on_give_up` is the node's.
  void GiveUp(const Status& why);
  std::function<void(const Status& why)> on_give_up;

  /// Wraps a callback so that it does nothing once the run is over (or its part was torn down).
  [[nodiscard]] bool over() const { return over_; }
  void SetOver() { over_ = true; }

  /// The rule that the settings name; who made the options has checked that there is one.
  [[nodiscard]] const Strategy& strategy() const;

  /// Writes not yet acknowledged by the store.
  [[nodiscard]] int pending_writes() const { return pending_writes_; }

 private:
  bool over_ = false;
  int pending_writes_ = 0;
};

/// Name of a round's files: "round-0003".
[[nodiscard]] std::string RoundName(RoundId round);
[[nodiscard]] std::string StateBlobName(RoundId version);
/// The posterior of a version's adapter.
[[nodiscard]] std::string PosteriorBlobName(RoundId version);
/// What a relay's members changed in that round, as its own update.
[[nodiscard]] std::string ForwardedBlobName(RoundId round);
/// Where a client's update waits for its round's merge.
[[nodiscard]] std::string SpoolName(RoundId round, const ClientId& client);

}  // namespace weft
