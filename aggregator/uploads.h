#pragma once
// Uploads: pulls offered updates into the store's spool, chunk by chunk, a few at a time; the rest
// wait in line. What has come in is kept over reconnects and restarts. Owned by the AggregatorNode.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "aggregator/office.h"
#include "common/wire/chunk_patience.h"
#include "common/wire/payload.h"

namespace weft {

/// An update that is whole in the store.
struct Upload {
  std::string blob;
  PayloadOffer payload;
  uint64_t wire_bytes = 0;  // chunks that came, over all links, re-sent ones included
  double upload_s = 0;      // from the first request to the last byte on disk
};

class Uploads {
 public:
  using Done = std::function<void(const ClientId& client, Result<Upload> upload)>;

  explicit Uploads(Office& office) : office_(office) {}

  /// `done` is told of every offer that was not cancelled, once.
  void SetDone(Done done) { done_ = std::move(done); }

  /// Takes an offer on; one of the same payload already taken on is left as it is, another payload
  /// of the same client is replaced.
  void Take(const ClientId& client, const std::string& blob, const PayloadOffer& payload);
  void OnChunk(const ClientId& from, const Chunk& chunk, const Blob& bytes);

  /// The client is gone: its place is given to the next, its bytes stay for when it is back.
  void Pause(const ClientId& client) { Forget(client); }
  /// The round is over: forgets everything on offer (the spool is removed by the round).
  void CancelAll();
  /// Asks again where nothing came for a while.
  void Tick();

  [[nodiscard]] bool Has(const ClientId& client) const { return transfers_.contains(client); }

 private:
  struct Transfer;
  using Shared = std::shared_ptr<Transfer>;
  void Forget(const ClientId& client);
  void StartNext();
  void Begin(const ClientId& client, Transfer& transfer);
  void Ask(const ClientId& client, Transfer& transfer);
  void OnWritten(const ClientId& client, const Shared& transfer, const Status& status);
  void Seal(const ClientId& client, const Shared& transfer);
  void OnSealed(const ClientId& client, const Shared& transfer, const Status& status);
  [[nodiscard]] bool Current(const ClientId& client, const Shared& transfer) const;
  [[nodiscard]] size_t CountActive() const;

  Office& office_;
  Done done_;
  std::map<ClientId, Shared> transfers_;
  std::deque<ClientId> line_;                // taken on, not started
  std::map<ClientId, uint64_t> came_bytes_;  // in this round, over reconnects
  std::map<ClientId, ChunkPatience> patience_;
};

}  // namespace weft
