#pragma once
// Disks that do not keep their word, for tests of the checkers.

namespace weft::sim {

enum class DiskBug {
  kNone,
  kAcknowledgesEarly,  // before it has written
  kForgets,            // an update that it had acknowledged, when its process dies
};

}  // namespace weft::sim
