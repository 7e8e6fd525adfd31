#pragma once
// MergeRound: runs a strategy over all sites and certifies what it publishes. What every rule has
// in common lies here, so that a rule is only its formula.

#include <string>
#include <vector>

#include "aggregator/strategies/strategy.h"
#include "common/plan/certificate.h"
#include "common/runtime/executor.h"

namespace weft {

struct MergedRound {
  GlobalState global;  // float32
  Certificate certificate;
};

/// Merges the sites in parallel; the result does not depend on the number of threads. kCancelled if
/// the control says so, kInvalidArgument if what comes out is not finite.
[[nodiscard]] Result<MergedRound> MergeRound(const Strategy& strategy, const MergeInput& input,
                                             JobControl& control);

/// p_k of the accepted updates: "examples" (each client's capped by max_examples), "tokens" or "uniform",
/// divided by their sum. kInvalidArgument for another word, no update, or a count of 0.
[[nodiscard]] Result<std::vector<double>> ClientWeights(const std::vector<UpdateHeader>& headers,
                                                        const std::string& weighting,
                                                        uint64_t max_examples);

/// ‖ΔW_k − sent_k‖_F over all sites, to the precision of float32; of ΔW_k itself where the client
/// was sent no adapter to start from. kInvalidArgument if the two have different sites.
[[nodiscard]] Result<double> UpdateNorm(const AdapterState& update,
                                        const std::optional<AdapterState>& sent);

}  // namespace weft
