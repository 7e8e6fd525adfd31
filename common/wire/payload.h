#pragma once
// Payloads in chunks, both ends as pure state machines: no sockets, no clock, no threads. The
// receiver pulls: it asks for chunks (ChunkRequest) as far as its window allows, so what is in
// flight is bounded by the one who must store it.

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/crypto/digest.h"
#include "common/runtime/transport.h"
#include "common/wire/messages.h"

namespace weft {

/// Chunks a payload of that size has; all but the last are limits::kChunkBytes long.
[[nodiscard]] uint64_t ChunkCount(uint64_t payload_bytes);

/// The offer that names these bytes: takes one SHA-256 over them.
[[nodiscard]] PayloadOffer OfferOf(const Blob& payload);

/// Serves one payload from memory (or a mapped file) by slices, without a copy.
class PayloadSender {
 public:
  PayloadSender(PayloadOffer offer, Blob payload);

  [[nodiscard]] const PayloadOffer& offer() const { return offer_; }

  /// Notes what a peer asks for. kInvalidArgument: another payload, nothing, or chunks beyond its
  /// end (the peer is broken).
  [[nodiscard]] Status Ask(const ChunkRequest& request);

  /// Sends what was asked for until `send` refuses; kResourceExhausted from it keeps the rest for
  /// the next call, any other failure is returned and forgets what was asked. Call again when the
  /// link may have room.
  [[nodiscard]] Status Pump(const std::function<Status(Frames)>& send);
  [[nodiscard]] bool idle() const { return asked_.empty(); }
  /// Forgets what was asked: the link is gone, the peer will ask again.
  void Reset() { asked_.clear(); }

 private:
  [[nodiscard]] Frames MakeChunk(uint64_t index) const;

  PayloadOffer offer_;
  Blob payload_;
  struct Range {
    uint64_t next = 0;
    uint64_t end = 0;
  };
  std::deque<Range> asked_;
};

/// Follows one payload coming in: what to ask for next, whether a chunk is the one expected, and
/// the whole's digest.
class PayloadReceiver {
 public:
  struct Options {
    uint32_t window = 4;  // chunks asked for and not yet here
    bool verify_digest =
        true;  // false: whoever stores the bytes checks the SHA-256 (Store::SealPartial)
  };

  PayloadReceiver(PayloadOffer offer, Options options);

  /// Starts behind bytes already kept from an interrupted transfer; whole chunks only count. `kept`
  /// gives the digest its beginning (empty allowed with verify_digest = false). Before the first
  /// NextRequest.
  void ResumeAfter(uint64_t bytes, const Blob& kept);

  [[nodiscard]] const PayloadOffer& offer() const { return offer_; }
  [[nodiscard]] uint64_t received_bytes() const { return received_bytes_; }
  [[nodiscard]] bool complete() const { return received_bytes_ == offer_.bytes; }
  [[nodiscard]] uint32_t in_flight() const { return static_cast<uint32_t>(asked_ - next_); }

  /// What to ask for now; nothing while half the window is still under way, so that one request
  /// carries several chunks.
  [[nodiscard]] std::optional<ChunkRequest> NextRequest();

  /// kInvalidArgument for a chunk of this payload's name that is behind its end or not of the size
  /// that the offer gives it. Nobody who holds what was offered sends one, however often links
  /// break.
  [[nodiscard]] Status CheckFits(const Chunk& chunk, const Blob& bytes) const;

  /// Takes the next chunk. Returns where its bytes belong; kInvalidArgument: another payload's, not
  /// asked for, replayed, out of order or of wrong size (cut the peer); kDataLoss: its checksum
  /// differs (ask again after Restart()).
  [[nodiscard]] Result<uint64_t> Accept(const Chunk& chunk, const Blob& bytes);

  /// kDataLoss unless all is here and, with verify_digest, has the digest that was offered.
  [[nodiscard]] Status Finish();

  /// The link was lost: chunks asked for and not here are asked for again.
  void Restart() { asked_ = next_; }

 private:
  PayloadOffer offer_;
  Options options_;
  uint64_t chunks_;
  uint64_t next_ = 0;   // first chunk missing
  uint64_t asked_ = 0;  // first chunk not asked for
  uint64_t received_bytes_ = 0;
  Sha256 digest_;
};

/// Memory for one payload, filled in order; taken when the first chunk arrives, aligned to 64
/// bytes, never zeroed first.
class PayloadBuffer {
 public:
  /// kResourceExhausted if there is no such memory.
  [[nodiscard]] static Result<PayloadBuffer> Make(uint64_t bytes);

  void Write(uint64_t offset, ByteSpan bytes);
  /// The first `bytes` bytes; later writes must lie behind them.
  [[nodiscard]] Blob Share(uint64_t bytes) const;

 private:
  PayloadBuffer(std::shared_ptr<std::byte> memory, uint64_t size)
      : memory_(std::move(memory)), size_(size) {}

  std::shared_ptr<std::byte> memory_;
  uint64_t size_ = 0;
};

}  // namespace weft
