#pragma once
// LoRA-XS (Bałazy et al. 2024): ΔW = s·B·R·A with only R [r×r] trained, which starts from zero; A
// and B are frozen, the same for all, and here drawn at random from a seed instead of taken from
// W's singular vectors, so that they never travel: r² numbers a layer both ways. Their rows
// (columns) are nearly orthonormal: independent, of mean square 1/in (1/out). Bases from NOLA's
// generator.

#include "common/adapters/adapter.h"

namespace weft {

[[nodiscard]] const Adapter* LoraXsAdapter();

}  // namespace weft
