#pragma once
// Messages ⇄ control frames (Cap'n Proto, flat, protocols/weft.capnp). Decoding trusts nothing:
// sizes, depth, lists, texts, numbers and names are checked against base/limits.h before memory is
// taken. Pure functions, any thread.

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/wire/messages.h"

namespace weft {

/// The message's control frame. Free text (reasons) is cut at limits::kTextBytesMax; nothing else
/// is changed.
[[nodiscard]] Blob EncodeMessage(const Message& message);

/// kInvalidArgument: malformed or over a limit: the peer is broken or hostile.
/// kFailedPrecondition: well-formed, but of a kind this version does not know: a newer peer's, to
/// be ignored.
[[nodiscard]] Result<Message> DecodeMessage(const Blob& control);

}  // namespace weft
