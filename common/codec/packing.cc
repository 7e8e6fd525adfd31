#include "common/codec/packing.h"

#include <algorithm>

#include "common/base/str.h"
#include "common/codec/sparse.h"
#include "common/codec/uniform.h"

namespace weft {
namespace {

Status CheckTensors(const std::vector<BlockTensor>& tensors, const std::string& section,
                    const std::string& owner) {
  for (const BlockTensor& tensor : tensors) {
    if (tensor.packing.empty() || tensor.shared_with) continue;  // a shared one was looked at
    WEFT_TRY(Unpacked(tensor).status().Within(Str("[packing] ", section, " ", owner)));
  }
  return OkStatus();
}

}  // namespace

BlockTensor Packed(BlockTensor plain) {
  if (!plain.packing.empty()) return plain;  // its codec packs
  std::optional<BlockTensor> sparse = PackSparse(plain);
  return sparse ? std::move(*sparse) : std::move(plain);
}

Result<BlockTensor> Unpacked(const BlockTensor& tensor) {
  if (tensor.packing.empty()) return tensor;
  if (tensor.packing == kUniform8Packing || tensor.packing == kUniform4Packing) {
    return UnpackUniform(tensor);
  }
  if (tensor.packing != kSparsePacking) {
    return InvalidArgument(Str("tensor ", tensor.name, " is packed as \"", tensor.packing,
                               "\"; known: ", kSparsePacking, ", ", kUniform8Packing, ", ",
                               kUniform4Packing));
  }
  WEFT_TRY_ASSIGN(BlockTensor plain, UnpackSparse(tensor));
  if (IsFinite(plain)) return plain;
  return InvalidArgument(
      Str("tensor ", tensor.name, ": got NaN or an infinity, wanted finite values"));
}

Status CheckPacked(const TensorBlock& block) {
  for (const BlockSection& section : block.sections) {
    for (const BlockSite& site : section.sites) {
      WEFT_TRY(CheckTensors(site.tensors, section.role, site.site.path));
    }
    WEFT_TRY(CheckTensors(section.dense, section.role, "dense"));
  }
  return OkStatus();
}

bool IsZero(const BlockTensor& tensor) {
  const Result<BlockTensor> plain = Unpacked(tensor);
  if (!plain.ok()) return false;
  const ByteSpan bytes = plain->bytes.span();
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace weft
