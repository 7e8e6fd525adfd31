#pragma once
// Members: who has joined, what they offer, who is here now and who is still expected. A plain
// table ordered by name; owned by the AggregatorNode.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/plan/round_plan.h"
#include "common/runtime/clock.h"

namespace weft {

struct Member {
  Capabilities offer;
  bool present = false;
  Nanos heard{0};              // when its last message came
  std::string phase = "wait";  // of its last heartbeat
  RoundId busy_with;           // round of its last heartbeat
};

class Members {
 public:
  /// The client is here (again). It is no longer waited for.
  void Join(const ClientId& client, Capabilities offer, Nanos now);
  /// It left; what it offered stays known.
  void Leave(const ClientId& client);

  [[nodiscard]] Member* Find(const ClientId& client);
  [[nodiscard]] const Member* Find(const ClientId& client) const;
  [[nodiscard]] bool Present(const ClientId& client) const;
  /// Kept, not counted: each join asks for it.
  [[nodiscard]] size_t CountPresent() const { return present_; }
  /// Sorted by name.
  [[nodiscard]] std::vector<ClientId> PresentNames() const;
  /// Present, but not heard for longer than `gone_after`.
  [[nodiscard]] std::vector<ClientId> Silent(Nanos now, Nanos gone_after) const;

  /// A client that the run should wait for before it decides who takes part.
  void Expect(const ClientId& client);
  void ExpectNobody() { expected_.clear(); }
  /// Expected and not here, sorted by name.
  [[nodiscard]] const std::set<ClientId>& Missing() const { return expected_; }
  /// Missing() and whoever has left, sorted by name: whom a run that lacks members lacks.
  [[nodiscard]] std::set<ClientId> Away() const;

 private:
  std::map<ClientId, Member> members_;
  size_t present_ = 0;
  std::set<ClientId> expected_;
};

/// "alpha, beta and 3 more"; "nobody" for an empty list.
[[nodiscard]] std::string Names(const std::vector<ClientId>& clients);
[[nodiscard]] std::string Names(const std::set<ClientId>& clients);

}  // namespace weft
