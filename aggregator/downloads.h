#pragma once
// Downloads: serves bundles to the clients they were cut for, a few clients at a time so that what
// lies encrypted in queues stays bounded; the others' requests wait. One whose last chunk was sent
// makes room, but what it was sent counts until it is known to have come: else a cohort that asks
// for small bundles is sent all of them at once. Owned by the AggregatorNode.

#include <deque>
#include <map>
#include <set>
#include <string>

#include "aggregator/bundles.h"
#include "aggregator/office.h"
#include "common/wire/payload.h"

namespace weft {

class Downloads {
 public:
  enum class Use { kTrain, kEvaluate };

  explicit Downloads(Office& office) : office_(office) {}

  /// The client may pull this bundle; it replaces the one it had for this use.
  void Allow(const ClientId& client, Use use, const Bundle& bundle);
  /// Nobody is served for this use any longer.
  void ForbidAll(Use use);

  /// kNotFound: not on offer (any more), to be ignored; kInvalidArgument: the peer is broken.
  [[nodiscard]] Status OnRequest(const ClientId& from, const ChunkRequest& request);
  /// The client is not pulling any longer: all that it was sent has come.
  void OnArrived(const ClientId& client);
  /// What it asked for is forgotten; it will ask again.
  void Gone(const ClientId& client);
  /// Sends what queues had no room for, and lets the next client in when one stands still.
  void Tick();

  /// Bytes of chunks sent to the client for this use, re-sent ones included.
  [[nodiscard]] uint64_t SentBytes(const ClientId& client, Use use) const;

 private:
  struct Serving {
    PayloadSender sender;
    uint64_t sent_bytes = 0;
    uint64_t asked_bytes = 0;  // by its newest request
    bool whole = false;        // its last chunk was sent
  };
  struct OnItsWay {
    uint64_t bytes = 0;
    Nanos since{0};
  };
  using Key = std::pair<ClientId, Use>;
  void Admit();
  /// False once nothing is left to send.
  bool Pump(const Key& key);
  void Leave(const Key& key);
  void Arrived(const Key& key);

  Office& office_;
  std::map<Key, Serving> servings_;
  std::map<Key, Nanos> active_;         // being served, since when it last asked
  std::map<Key, OnItsWay> on_its_way_;  // served, not known to have it
  uint64_t on_its_way_bytes_ = 0;
  std::deque<Key> line_;
};

}  // namespace weft
