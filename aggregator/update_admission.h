#pragma once
// CheckUpdate: everything about a received update that can be known without the other updates. A
// peer's bytes come in; only after names, shapes, element types and finiteness are right does
// torch see them.

#include <span>

#include "common/adapters/adapter.h"
#include "common/base/result.h"
#include "common/plan/round_plan.h"
#include "common/wire/tensor_block.h"

namespace weft {

/// kInvalidArgument unless the header is from the planned client, about the planned adapter, and
/// its numbers make sense.
[[nodiscard]] Status CheckUpdateHeader(const ClientPlan& client, const UpdateHeader& header);

/// The block of an update whose structure is exactly what the plan asks for: one "adapter" section
/// of the planned spec, every tensor present once, of the planned shape and the codec's type, and
/// the whole modules that the client was sent; a change in what was sent if `delta`, else whole.
/// Errors name client, round, site, tensor, got and wanted.
[[nodiscard]] Result<TensorBlock> ReadUpdate(const ClientPlan& client, const UpdateHeader& header,
                                             std::span<const LinearSite> sites, const Blob& payload,
                                             std::span<const TensorLayout> dense = {},
                                             bool delta = false);

/// ReadUpdate, and every value is finite and, of a whole update, not all are zero: a change of
/// nothing is what a client with nothing to learn sends. Once, at admission.
[[nodiscard]] Result<TensorBlock> CheckUpdate(const ClientPlan& client, const UpdateHeader& header,
                                              std::span<const LinearSite> sites,
                                              const Blob& payload,
                                              std::span<const TensorLayout> dense = {},
                                              bool delta = false);

/// The update's tensors, or their changes; `block` must come from one of the two.
[[nodiscard]] Result<AdapterState> ViewUpdate(const TensorBlock& block);

}  // namespace weft
