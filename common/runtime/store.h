#pragma once
// Store: the seam through which a node keeps things. A run folder holds a ledger (append-only
// events, each carrying the hash of the one before) and blobs (adapters, updates) under
// slash-separated names.
//
// Writes are asynchronous: `done` is called in the node's loop once the bytes are durable; what a
// node acknowledges to a peer it acknowledges after `done`. Writes complete in the order they were
// asked for. Reads are synchronous and, for blobs, thread-safe (workers map what they merge).

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace weft {

/// One entry of the ledger. hash = SHA-256 over (previous hash, seq, wall_us, kind, body); see
/// docs/formats.md.
struct LedgerEvent {
  uint64_t seq = 0;     // from 1, without gaps
  int64_t wall_us = 0;  // microseconds since the Unix epoch
  std::string kind;     // "round-opened", "update-accepted" …
  std::string body;     // JSON object, one line
  std::string hash;     // hex
};

/// An event before the ledger has numbered and chained it.
struct EventDraft {
  std::string kind;
  std::string body;
};

using Done = std::function<void(Status)>;

/// Blobs to read: a node's store, or the run folder of a run that nobody works on. Thread-safe.
class BlobSource {
 public:
  virtual ~BlobSource() = default;

  /// Bytes of a blob, mapped where the world allows it. kNotFound if there is none.
  [[nodiscard]] virtual Result<Blob> ReadBlob(const std::string& name) const = 0;
  /// Bytes [offset, offset + length) of a whole blob: for going through large ones piece by piece,
  /// with no more in memory than the piece. kDataLoss if the blob ends before.
  [[nodiscard]] virtual Result<Blob> ReadPart(const std::string& name, uint64_t offset,
                                              uint64_t length) const;
};

class Store : public BlobSource {
 public:
  /// Appends all of them in one transaction, or none.
  virtual void Append(std::vector<EventDraft> events, Done done) = 0;

  /// Writes a whole blob: temporary file, fsync, rename. An existing blob of that name is replaced.
  virtual void WriteBlob(std::string name, Blob bytes, Done done) = 0;

  /// Writes bytes at `offset` of the partial blob `name`; offset must be its present size (chunks
  /// come in order). `done` says that they outlive this process; the machine's power only once
  /// sealed.
  virtual void WritePartial(std::string name, uint64_t offset, Blob bytes, Done done) = 0;
  /// Makes a partial blob whole: its size and SHA-256 (hex) must be as said, else it is removed and
  /// kDataLoss returned.
  virtual void SealPartial(std::string name, uint64_t bytes, std::string sha256, Done done) = 0;
  /// Size of the partial blob once the writes asked for are done, 0 if there is none: where an
  /// interrupted upload resumes.
  [[nodiscard]] virtual uint64_t PartialBytes(const std::string& name) const = 0;

  /// Removes a blob and its partial form; none of that name is fine.
  virtual void RemoveBlob(std::string name, Done done) = 0;

  /// Names of whole blobs that start with `prefix`, sorted.
  [[nodiscard]] virtual std::vector<std::string> ListBlobs(const std::string& prefix) const = 0;

  /// The ledger from its start, chain checked, one event after the other, so that a long one is
  /// never in memory as a whole: kDataLoss names the first bad row. Ends at the first event that
  /// `take` does not take, with its status.
  using TakeEvent = std::function<Status(LedgerEvent event)>;
  [[nodiscard]] virtual Status EachEvent(const TakeEvent& take) const = 0;
  /// All of it.
  [[nodiscard]] Result<std::vector<LedgerEvent>> ReadLedger() const;
};

}  // namespace weft
