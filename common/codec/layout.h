#pragma once
// CheckLayout: does a section hold exactly the tensors that a spec asks for? Looks at names, shapes
// and element types only, so it runs on a peer's section before torch sees a byte of it.

#include <span>
#include <string>
#include <vector>

#include "common/adapters/adapter.h"
#include "common/base/result.h"
#include "common/plan/adapter_spec.h"
#include "common/wire/tensor_block.h"

namespace weft {

/// kInvalidArgument naming site, tensor, got and wanted unless `section` has exactly these sites in
/// this order, each with exactly the tensors of the method's Layout, of element type `dtype`, and
/// exactly this dense part. The caller puts whose section it is in front (Status::Within).
[[nodiscard]] Status CheckLayout(const BlockSection& section, const AdapterSpec& spec,
                                 std::span<const LinearSite> sites, DType dtype,
                                 std::span<const TensorLayout> dense = {});

/// More bytes than the manifest of any such section takes, for DecodeTensorBlock: a peer's block
/// with a longer one is none. Errors are those of the method's Layout.
[[nodiscard]] Result<uint64_t> ManifestBytesMax(const AdapterSpec& spec,
                                                std::span<const LinearSite> sites,
                                                std::span<const TensorLayout> dense = {});

/// Names and shapes of a section's dense part.
[[nodiscard]] std::vector<TensorLayout> DenseOf(const BlockSection& section);

/// kInvalidArgument naming the first field in which two specs differ.
[[nodiscard]] Status CheckSameSpec(const AdapterSpec& got, const AdapterSpec& wanted);

}  // namespace weft
