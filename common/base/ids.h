#pragma once
// Strong types for the names of things, so that a round is never passed where a client is wanted.

#include <compare>
#include <cstdint>
#include <ostream>
#include <string>

namespace weft {

/// A client's identity: its site name (the allow-list maps key → name). Ordering and seeds use the
/// name, so the same run has the same bits whatever its keys.
struct ClientId {
  std::string name;
  friend auto operator<=>(const ClientId&, const ClientId&) = default;
  friend std::ostream& operator<<(std::ostream& out, const ClientId& id) { return out << id.name; }
};

/// Rounds count from 1; round 0 is the initial model.
struct RoundId {
  uint32_t number = 0;
  friend auto operator<=>(const RoundId&, const RoundId&) = default;
  friend std::ostream& operator<<(std::ostream& out, RoundId id) { return out << id.number; }
};

/// A run's name: unique per run folder, made from the run's configured name and its seed.
struct RunId {
  std::string name;
  friend auto operator<=>(const RunId&, const RunId&) = default;
  friend std::ostream& operator<<(std::ostream& out, const RunId& id) { return out << id.name; }
};

}  // namespace weft
