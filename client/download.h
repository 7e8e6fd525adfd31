#pragma once
// Download: pulls one payload from the aggregator into memory. Asks again for what a lost link
// took with it.

#include <functional>
#include <optional>

#include "client/context.h"
#include "common/wire/chunk_patience.h"
#include "common/wire/payload.h"

namespace weft {

class Download {
 public:
  using Done = std::function<void(Result<Blob> bytes)>;

  explicit Download(ClientContext& context) : context_(context) {}

  /// Replaces what was being pulled.
  void Start(const PayloadOffer& offer, Done done);
  void Stop();
  [[nodiscard]] bool running() const { return receiver_.has_value(); }
  [[nodiscard]] bool Pulls(const std::string& sha256) const;

  void OnChunk(const Chunk& chunk, const Blob& bytes);
  /// The link is new: asks for what is missing.
  void AskAgain();
  /// It was offered once more. An aggregator that has just been started may have been asked before
  /// it knew what for; else chunks are on their way, and whether any are missing is no offer's to
  /// say.
  void OfferedAgain();
  /// Asks again if nothing came for a while.
  void Tick();

 private:
  void Ask();
  void Finish(Result<Blob> result);

  ClientContext& context_;
  std::optional<PayloadReceiver> receiver_;
  std::optional<PayloadBuffer> buffer_;
  Done done_;
  ChunkPatience patience_;
  bool renewed_ = false;  // the link, since the payload was offered last
};

}  // namespace weft
