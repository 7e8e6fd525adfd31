#pragma once
// How deep a JSON text nests, told before a library that recurses over it (copying, printing,
// comparing a value) exhausts the stack on a stranger's file. A pure function; any thread.

#include <string_view>

#include "common/base/limits.h"

namespace weft {

/// True if no place of `text` lies within more than `depth_max` arrays and objects. Brackets within
/// strings do not count; of text that is no JSON the answer says nothing, and a parser refuses it.
[[nodiscard]] bool JsonDepthWithin(std::string_view text, int depth_max = limits::kJsonNestingMax);

}  // namespace weft
