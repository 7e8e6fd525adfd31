#pragma once
// Mutations of an input, drawn from a stream: the same stream gives the same inputs everywhere.

#include <span>
#include <string>
#include <string_view>

#include "common/base/random.h"

namespace weft::fuzz {

/// `input` with one to eight changes: bits and bytes flipped, stretches removed, doubled, moved or
/// taken from `other`, numbers at their limits, words of the format. At most `size_max` bytes.
[[nodiscard]] std::string Mutated(std::string input, std::string_view other,
                                  std::span<const std::string_view> words, size_t size_max,
                                  RandomStream& random);

}  // namespace weft::fuzz
