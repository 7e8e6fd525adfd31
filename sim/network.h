#pragma once
// SimNetwork: the star of one aggregator and its clients in virtual time. It carries the same
// frames as ZeroMQ does, with the same limits; each client has a link with a latency and a
// bandwidth, and frames on a link queue behind one another.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "common/runtime/transport.h"
#include "sim/event_queue.h"

namespace weft::sim {

struct LinkProfile {
  Nanos latency = std::chrono::milliseconds(5);  // one way
  double bytes_per_s = 12.5e6;                   // each way; 0: unlimited
};

/// What becomes of a message on a client's link, to the aggregator or from it: one extra delay for
/// each copy that arrives; none: it is lost. Frames may then overtake one another, which no real
/// link does.
using Weather = std::function<std::vector<Nanos>(const ClientId& client, bool to_aggregator)>;

/// Asked of every message: which bit of it is another one when it arrives; nothing: none.
using Damage = std::function<std::optional<uint64_t>()>;

class SimNetwork {
 public:
  SimNetwork(EventQueue& queue, LinkProfile profile);
  ~SimNetwork();
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  /// The aggregator's end. Borrowed; lives as long as the network.
  [[nodiscard]] Transport& AggregatorEnd();
  /// The end of the client of that name, made on first use.
  [[nodiscard]] Transport& ClientEnd(const ClientId& client);

  void SetWeather(Weather weather) { weather_ = std::move(weather); }
  /// A chunk arrives with that bit changed. Anything else breaks the link, as it does where CURVE
  /// finds it was changed.
  void SetDamage(Damage damage) { damage_ = std::move(damage); }
  /// Told of every message that is handed to a link.
  using Tap = std::function<void(const ClientId& from, const ClientId& to, const Frames& frames)>;
  void SetTap(Tap tap) { tap_ = std::move(tap); }

  /// The node's process is gone: what is in flight to and from it is lost, and its peers notice
  /// that their links broke.
  void Drop(const ClientId& node);

  /// Bytes carried so far, both ways together.
  [[nodiscard]] uint64_t bytes_carried() const { return bytes_carried_; }

 private:
  class End;
  struct Link {
    Nanos up_free{0};  // when the client's uplink has sent what was given to it
    Nanos down_free{0};
    uint64_t epoch = 0;  // raised by a cut: frames sent before it are lost
  };

  Status Carry(const ClientId& from, const ClientId& to, Frames frames);
  void Deliver(const ClientId& from, const ClientId& to, Frames frames, Nanos arrival);
  void CutLink(const ClientId& by, const ClientId& peer, const Status& why);
  /// False if the message is gone with its link.
  bool Harm(const ClientId& from, const ClientId& to, uint64_t bit, Frames& frames);
  [[nodiscard]] Nanos ArrivalTime(Nanos& free_at, size_t bytes) const;
  [[nodiscard]] End* FindEnd(const ClientId& name) const;

  EventQueue& queue_;
  LinkProfile profile_;
  Weather weather_;
  Damage damage_;
  Tap tap_;
  std::unique_ptr<End> aggregator_;
  std::map<ClientId, std::unique_ptr<End>> clients_;
  std::map<ClientId, Link> links_;
  uint64_t bytes_carried_ = 0;
};

}  // namespace weft::sim
