#pragma once
// EvalWork: evaluates a published version on the client's validation rows. Owned by the ClientNode.

#include <memory>
#include <optional>

#include "client/context.h"
#include "client/download.h"
#include "client/jobs.h"
#include "client/kept_update.h"

namespace weft {

class EvalWork {
 public:
  explicit EvalWork(ClientContext& context)
      : context_(context), disk_(context), download_(context) {}

  void OnRequest(const EvalRequest& request);
  void OnChunk(const Chunk& chunk, const Blob& bytes) { download_.OnChunk(chunk, bytes); }
  void OnJoined() { download_.AskAgain(); }
  void Tick() { download_.Tick(); }
  void Stop();

 private:
  void Evaluate(Blob bundle);
  void Answer(EvalReport report);
  void CannotAnswer(const Status& why);

  ClientContext& context_;
  ClientDisk disk_;
  Download download_;
  std::optional<EvalRequest> request_;  // being worked on
  std::optional<EvalReport> answered_;  // last one, in case its answer was lost
  std::shared_ptr<JobControl> control_;
  uint64_t work_ = 0;
};

}  // namespace weft
