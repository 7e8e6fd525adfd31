#pragma once
// Reads what we need of a sentencepiece model file (a protobuf, sentencepiece_model.proto) and
// refuses files that libsentencepiece would follow out of their bounds. The library itself does the
// encoding.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace weft {

struct SentencePieceFacts {
  struct Piece {
    std::string text;
    uint32_t type = 1;  // normal
  };
  static constexpr uint32_t kUnknown = 2, kControl = 3, kTypeMax = 6;

  std::vector<Piece> pieces;  // the index is the id
  bool add_dummy_prefix = true;
};

[[nodiscard]] Result<SentencePieceFacts> ExamineSentencePieceModel(std::string_view bytes);

}  // namespace weft
