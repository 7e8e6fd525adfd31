#include "common/base/json_depth.h"

#include <cstddef>

namespace weft {

bool JsonDepthWithin(std::string_view text, int depth_max) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
      continue;
    }
    if (c == '"') quoted = true;
    if (c == '{' || c == '[') {
      if (++depth > depth_max) return false;
    }
    if (c == '}' || c == ']') --depth;
  }
  return true;
}

}  // namespace weft
