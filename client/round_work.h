#pragma once
// RoundWork: the client's part of one round: pull the bundle, train, keep, offer, serve, hear the
// verdict. Owned by the ClientNode.

#include <memory>
#include <optional>
#include <string>

#include "client/context.h"
#include "client/download.h"
#include "client/jobs.h"
#include "client/kept_update.h"
#include "common/wire/payload.h"

namespace weft {

class RoundWork {
 public:
  explicit RoundWork(ClientContext& context);
  ~RoundWork();
  RoundWork(const RoundWork&) = delete;
  RoundWork& operator=(const RoundWork&) = delete;

  void OnOffer(const RoundOffer& offer);
  void OnVerdict(const UpdateVerdict& verdict);
  void OnClosed(const RoundClosed& closed);
  void OnChunk(const Chunk& chunk, const Blob& bytes) { download_.OnChunk(chunk, bytes); }
  /// kInvalidArgument: asked for in a way no aggregator of ours does.
  [[nodiscard]] Status OnChunkRequest(const ChunkRequest& request);

  void OnJoined();
  void OnLost();
  void Tick();
  /// Training is cancelled; what is kept stays kept.
  void Stop();

 private:
  enum class Stage { kIdle, kPulling, kTraining, kKeeping, kOffering };

  [[nodiscard]] Status CheckOffer(const RoundOffer& offer) const;
  [[nodiscard]] bool SameWork(const RoundOffer& offer) const;
  void Begin(const RoundOffer& offer);
  bool TakeKept();
  void Train(Blob bundle);
  void OnTrained(Result<TrainJob::Output> trained, Nanos began);
  void OfferUpdate();
  void SendOffer();
  void Fail(const Status& why);
  void Drop();
  void Pump();
  [[nodiscard]] Nanos ModelledCost() const;

  ClientContext& context_;
  ClientDisk disk_;
  Download download_;
  Stage stage_ = Stage::kIdle;
  RoundOffer offer_;
  RoundId newest_offer_;  // of this session
  std::optional<KeptUpdate> update_;
  std::optional<PayloadSender> sender_;
  std::shared_ptr<JobControl> control_;
  uint64_t work_ = 0;  // counts rounds begun; callbacks of an earlier one are ignored
  TimerId pump_timer_;
  Nanos idle_since_{0};
  Nanos began_{0};
  Nanos offered_{0};
  PhaseTimes times_;
};

}  // namespace weft
