// The one look at the values that came or that leave: no NaN, no infinity.

#include <array>
#include <cstring>

#include "common/base/str.h"
#include "common/wire/tensor_block.h"

namespace weft {
namespace {

// A float is NaN or infinite exactly if all bits of its exponent are set. Adding the exponent's
// lowest bit to the bare exponent then carries into the sign bit, which makes the test an and, an
// add and an or: any compiler vectorises it.
template <std::unsigned_integral Word>
bool AllFinite(ByteSpan bytes, Word exponent) {
  const Word lowest = static_cast<Word>(exponent & (~exponent + 1));
  const Word sign = static_cast<Word>(Word{1} << (8 * sizeof(Word) - 1));
  constexpr size_t kBlock =
      4096 / sizeof(Word);  // one L1-sized, aligned copy: the source need not be aligned
  std::array<Word, kBlock> words;
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size() / sizeof(Word), kBlock);
    std::memcpy(words.data(), bytes.data(), count * sizeof(Word));
    if (count < kBlock)
      std::fill(words.begin() + static_cast<std::ptrdiff_t>(count), words.end(), Word{0});
    Word seen = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      seen = static_cast<Word>(seen | static_cast<Word>((words[i] & exponent) + lowest));
    }
    if ((seen & sign) != 0) return false;
    bytes = bytes.subspan(count * sizeof(Word));
  }
  return true;
}

Status CheckTensors(const std::vector<BlockTensor>& tensors, const std::string& section,
                    const std::string& owner) {
  for (const BlockTensor& tensor : tensors) {
    if (!IsFinite(tensor)) {
      return InvalidArgument(Str("[tensor-block] ", section, " ", owner, " ", tensor.name,
                                 ": got NaN or an infinity, wanted finite values"));
    }
  }
  return OkStatus();
}

}  // namespace

bool IsFinite(const BlockTensor& tensor) {
  if (!tensor.packing.empty()) return true;  // its codec looks
  switch (tensor.dtype) {
    case DType::kFloat64:
      return AllFinite<uint64_t>(tensor.bytes.span(), 0x7FF0000000000000);
    case DType::kFloat32:
      return AllFinite<uint32_t>(tensor.bytes.span(), 0x7F800000);
    case DType::kFloat16:
      return AllFinite<uint16_t>(tensor.bytes.span(), 0x7C00);
    case DType::kBFloat16:
      return AllFinite<uint16_t>(tensor.bytes.span(), 0x7F80);
    default:
      return true;  // integers have neither
  }
}

Status CheckFinite(const TensorBlock& block) {
  for (const BlockSection& section : block.sections) {
    for (const BlockSite& site : section.sites) {
      WEFT_TRY(CheckTensors(site.tensors, section.role, site.site.path));
    }
    WEFT_TRY(CheckTensors(section.dense, section.role, "dense"));
  }
  return OkStatus();
}

}  // namespace weft
