#pragma once
// Download: pulls one payload from the aggregator into memory. Asks again for what a lost link
// took with it.

#include <functional>
#include <optional>

#include "client/context.h"
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
  /// Asks again if nothing came for a while.
  void Tick();

 private:
  void Ask();
  void Finish(Result<Blob> result);

  ClientContext& context_;
  std::optional<PayloadReceiver> receiver_;
  std::optional<PayloadBuffer> buffer_;
  Done done_;
  Nanos moved_{0};
};

}  // namespace weft
