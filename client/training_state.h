#pragma once
// TrainingState: what a site keeps between rounds (TrainJob::local_state) as bytes: the optimiser's
// moments where kept, the memory of the method's step rule, what its updates left out, and the
// place in the data. The client node hands each round the state of the newest round before it, so a
// round that is trained again starts from the same one.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/optimizer.h"
#include "common/base/bytes.h"
#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/data/batcher.h"

namespace weft {

struct TrainingState {
  std::string layout;  // of the adapter whose moments these are; see LayoutName
  std::optional<AdamW::Moments> moments;
  std::vector<NamedTensor> step_rule;  // what the method's step rule saved
  Batcher::Position position;
  std::optional<AdapterState> kept = std::nullopt;  // the part of the adapter that is not shipped
  RoundId round = {};                               // that left this behind
  /// What the updates left out, that of `round` included: owed to the next if that one was merged.
  std::optional<AdapterState> residual = std::nullopt;
  std::optional<AdapterState> residual_before = std::nullopt;  // owed if it was not
};

/// Equal names, equal meaning of each number of the moments: method and every site with its rank.
[[nodiscard]] std::string LayoutName(const AdapterState& state);

[[nodiscard]] Result<Blob> EncodeTrainingState(const TrainingState& state);

/// From a file of ours that may have been damaged: kInvalidArgument or kDataLoss says how.
[[nodiscard]] Result<TrainingState> DecodeTrainingState(const Blob& bytes);

}  // namespace weft
