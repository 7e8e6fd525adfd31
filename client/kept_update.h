#pragma once
// KeptUpdate: a trained update on the client's disk, from before it is offered until its verdict,
// and the local state each round left behind. What makes a restart go on instead of training anew.

#include <optional>
#include <string>

#include "client/context.h"
#include "common/base/bytes.h"

namespace weft {

struct KeptUpdate {
  UpdateHeader header;
  std::string bundle_sha256;  // what it was trained from
  Blob payload;
};

class ClientDisk {
 public:
  explicit ClientDisk(ClientContext& context) : context_(context) {}

  /// Payload, local state and header, in that order; `done` once all of it is durable. States that
  /// no later round will ask for are removed.
  void Keep(const KeptUpdate& update, const Blob& local_state, Done done);
  /// The update that was kept, if it is whole; damage is logged and taken for none.
  [[nodiscard]] std::optional<KeptUpdate> Load() const;
  /// The update has its verdict.
  void Forget();

  /// What the latest round before this one left for it; empty where there is nothing.
  [[nodiscard]] Blob LocalStateBefore(const RunId& run, RoundId round) const;

 private:
  /// kDataLoss if it is not what was written.
  [[nodiscard]] Result<Blob> ReadState(const std::string& name) const;
  void DropOtherStates(const RunId& run, RoundId round);

  ClientContext& context_;
};

}  // namespace weft
