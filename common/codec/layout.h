#pragma once
// CheckLayout: does a section hold exactly the tensors that a spec asks for? Looks at names, shapes
// and element types only, so it runs on a peer's section before torch sees a byte of it.

#include <span>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/plan/adapter_spec.h"
#include "common/wire/tensor_block.h"

namespace weft {

/// Name and shape of one tensor that a site must have.
struct TensorLayout {
  std::string name;
  std::vector<int64_t> shape;
};

/// What a site of this spec holds, in order. Ranks are capped by min(in, out). kInvalidArgument for
/// a method whose layout is not known here or a rank below 1.
[[nodiscard]] Result<std::vector<TensorLayout>> LayoutOf(const AdapterSpec& spec,
                                                         const LinearSite& site);

/// kInvalidArgument naming site, tensor, got and wanted unless `section` has exactly these sites in
/// this order, each with exactly the tensors of LayoutOf, of element type `dtype`, and no dense
/// part. The caller puts whose section it is in front (Status::Within).
[[nodiscard]] Status CheckLayout(const BlockSection& section, const AdapterSpec& spec,
                                 std::span<const LinearSite> sites, DType dtype);

/// kInvalidArgument naming the first field in which two specs differ.
[[nodiscard]] Status CheckSameSpec(const AdapterSpec& got, const AdapterSpec& wanted);

}  // namespace weft
