#pragma once
// Normalizer: the "normalizer" of tokenizer.json: text → text, before it is cut into words.
// Constant; any thread.

#include <memory>
#include <string>
#include <string_view>

#include "common/formats/tokenizer/json_view.h"

namespace weft {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// `text` is valid UTF-8, and so is what it becomes.
  virtual void Apply(std::string& text) const = 0;
};

/// Unknown types are errors that name them. `depth` counts nested Sequences.
[[nodiscard]] Result<std::unique_ptr<Normalizer>> ReadNormalizer(const JsonView& json,
                                                                 int depth = 0);

/// Sequences within Sequences, in any component: more is a hostile file.
inline constexpr int kComponentDepthMax = 16;

}  // namespace weft
