#include "common/wire/messages.h"

#include <array>

namespace weft {

std::string_view MessageName(const Message& message) {
  // In the order of the variant.
  constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames = {
      "hello",        "heartbeat", "update-offer",  "round-failed", "eval-reply",
      "welcome",      "refusal",   "round-offer",   "round-closed", "update-verdict",
      "eval-request", "run-ended", "chunk-request", "chunk",        "goodbye"};
  return kNames.at(message.index());
}

}  // namespace weft
