#pragma once
// Guarded(): the door at which exceptions of LibTorch and of allocation end. Everything above
// common/tensor that computes on tensors because of a file, a peer or a user calls through it and
// gets a Status.

#include <string_view>

#include "common/base/result.h"

namespace weft {

/// The Status of the exception now being handled: kResourceExhausted when memory of any device ran
/// out, kInternal for anything else LibTorch says. `where` leads the message ("[trainer]"). A
/// CheckFailure is a bug of ours and is thrown on. Call it only inside a catch block.
[[nodiscard]] Status StatusOfCurrentException(std::string_view where);

/// Runs `body` (returning a Status or a Result) and turns library exceptions into a Status.
template <typename Body>
requires requires(Body body, Status status) { decltype(body())(status); }
[[nodiscard]] auto Guarded(std::string_view where, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (...) {
    return StatusOfCurrentException(where);
  }
}

}  // namespace weft
