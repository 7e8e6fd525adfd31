#pragma once
// The ledger's hash chain: each event carries a SHA-256 over the event before it, so a row that was
// altered, dropped or moved shows. docs/formats.md has the bytes that are hashed.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/runtime/store.h"

namespace weft {

/// What stands in the place of the hash before event 1.
inline constexpr std::string_view kLedgerGenesis =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// Where a chain has come to.
struct LedgerTail {
  uint64_t seq = 0;
  std::string hash = std::string(kLedgerGenesis);
};

/// The hash of an event (its own `hash` is not looked at) that follows one with hash `previous`.
[[nodiscard]] std::string ChainHash(std::string_view previous, const LedgerEvent& event);

/// Numbers and chains a draft behind the tail, and moves the tail on.
[[nodiscard]] LedgerEvent Chain(LedgerTail& tail, EventDraft draft, int64_t wall_us);

/// Checks that `event` follows the tail and moves the tail on; kDataLoss names the row.
[[nodiscard]] Status CheckLink(LedgerTail& tail, const LedgerEvent& event);

/// The whole chain from event 1: kDataLoss names the first bad row.
[[nodiscard]] Status VerifyChain(std::span<const LedgerEvent> events);

}  // namespace weft
