#include "common/runtime/ledger.h"

#include <array>
#include <utility>

#include "common/crypto/digest.h"

namespace weft {
namespace {

std::array<std::byte, 8> LittleEndian(uint64_t value) {
  std::array<std::byte, 8> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes.at(i) = static_cast<std::byte>((value >> (8 * i)) & 0xFF);
  }
  return bytes;
}

// The length before each field keeps ("ab", "c") and ("a", "bc") apart.
void UpdateField(Sha256& hash, ByteSpan bytes) {
  hash.Update(LittleEndian(bytes.size()));
  hash.Update(bytes);
}

}  // namespace

std::string ChainHash(std::string_view previous, const LedgerEvent& event) {
  Sha256 hash;
  UpdateField(hash, AsBytes(previous));
  UpdateField(hash, LittleEndian(event.seq));
  UpdateField(hash, LittleEndian(static_cast<uint64_t>(event.wall_us)));
  UpdateField(hash, AsBytes(event.kind));
  UpdateField(hash, AsBytes(event.body));
  return hash.FinishHex();
}

LedgerEvent Chain(LedgerTail& tail, EventDraft draft, int64_t wall_us) {
  LedgerEvent event{.seq = tail.seq + 1,
                    .wall_us = wall_us,
                    .kind = std::move(draft.kind),
                    .body = std::move(draft.body),
                    .hash = {}};
  event.hash = ChainHash(tail.hash, event);
  tail = {event.seq, event.hash};
  return event;
}

Status CheckLink(LedgerTail& tail, const LedgerEvent& event) {
  if (event.seq != tail.seq + 1) {
    return DataLoss(Str("[ledger] row ", tail.seq + 1, ": missing; the next row present is ",
                        event.seq, ": rows were dropped or moved"));
  }
  const std::string wanted = ChainHash(tail.hash, event);
  if (event.hash != wanted) {
    return DataLoss(Str("[ledger] row ", event.seq, " ", event.kind, ": its hash is ", event.hash,
                        ", its content and the row before give ", wanted,
                        ": this row was altered, or one before it replaced"));
  }
  tail = {event.seq, event.hash};
  return OkStatus();
}

Status VerifyChain(std::span<const LedgerEvent> events) {
  LedgerTail tail;
  for (const LedgerEvent& event : events) WEFT_TRY(CheckLink(tail, event));
  return OkStatus();
}

}  // namespace weft
