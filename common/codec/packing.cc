#include "common/codec/packing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "common/base/check.h"
#include "common/base/str.h"
#include "common/codec/blockwise.h"
#include "common/codec/planes.h"
#include "common/codec/sparse.h"
#include "common/codec/uniform.h"

namespace weft {
namespace {

constexpr std::string_view kSparsePrefix = "sparse-";

std::span<const ValuePacking* const> ValuePackings() {
  static const std::array packings = {&PlanesPacking(), &Uniform8Packing(), &Uniform4Packing(),
                                      &Int8Packing(),   &Int4Packing(),     &Nf4Packing()};
  return packings;
}

// The value packing in a packing's name; null where its values are plain or the name is unknown.
const ValuePacking* ValuesOf(std::string_view packing) {
  if (packing.starts_with(kSparsePrefix)) packing.remove_prefix(kSparsePrefix.size());
  for (const ValuePacking* how : ValuePackings()) {
    if (how->name == packing) return how;
  }
  return nullptr;
}

Status Unknown(const BlockTensor& tensor) {
  std::string known(kSparsePacking);
  for (const ValuePacking* how : ValuePackings()) {
    known += Str(", ", how->name, ", ", kSparsePrefix, how->name);
  }
  return InvalidArgument(
      Str("tensor ", tensor.name, " is packed as \"", tensor.packing, "\"; known: ", known));
}

// The elements that are not zero, packed; nothing where there are no others.
Result<std::optional<BlockTensor>> SparseBy(const ValuePacking& how, const BlockTensor& plain) {
  const std::optional<SparseParts> parts = SplitSparse(plain);
  if (!parts) return std::optional<BlockTensor>();
  WEFT_TRY_ASSIGN(const BlockTensor values, how.pack(parts->values));
  return std::optional<BlockTensor>(
      JoinSparse(plain, parts->support, values.bytes, Str(kSparsePrefix, how.name)));
}

Result<BlockTensor> UnpackSparseBy(const ValuePacking& how, const BlockTensor& packed) {
  WEFT_TRY_ASSIGN(SparseView view, ReadSparse(packed));
  view.values.packing = how.name;
  WEFT_TRY_ASSIGN(const BlockTensor values, how.unpack(view.values));
  return Scatter(packed, view.positions, values.bytes.span());
}

Status CheckTensors(const std::vector<BlockTensor>& tensors, const std::string& section,
                    const std::string& owner) {
  for (const BlockTensor& tensor : tensors) {
    if (tensor.packing.empty() || tensor.shared_with) continue;  // a shared one was looked at
    WEFT_TRY(Unpacked(tensor).status().Within(Str("[packing] ", section, " ", owner)));
  }
  return OkStatus();
}

// Of eight bytes of such elements, all bits but the signs: −0 is a zero.
uint64_t BitsOfMagnitude(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 0x7FFFFFFFFFFFFFFF;
    case DType::kFloat32:
      return 0x7FFFFFFF7FFFFFFF;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 0x7FFF7FFF7FFF7FFF;
    default:
      return ~uint64_t{0};
  }
}

void TakeShorter(BlockTensor& best, const Result<BlockTensor>& other) {
  if (other.ok() && other->bytes.size() < best.bytes.size()) best = *other;
}

}  // namespace

BlockTensor Packed(BlockTensor plain, bool compress) {
  if (!plain.packing.empty()) return plain;  // its codec packs
  BlockTensor best = plain;
  if (std::optional<BlockTensor> sparse = PackSparse(plain)) best = std::move(*sparse);
  if (!compress || !PlanesFit(plain.dtype)) return best;
  TakeShorter(best, PlanesPacking().pack(plain));
  if (best.packing != kSparsePacking) return best;  // few zeros
  const Result<std::optional<BlockTensor>> both = SparseBy(PlanesPacking(), plain);
  if (both.ok() && *both) TakeShorter(best, **both);
  return best;
}

Result<BlockTensor> PackedBy(const ValuePacking& how, const BlockTensor& plain) {
  WEFT_CHECK(plain.packing.empty() && plain.dtype == DType::kFloat32, plain.name);
  WEFT_TRY_ASSIGN(BlockTensor all, how.pack(plain));
  WEFT_TRY_ASSIGN(std::optional<BlockTensor> sparse, SparseBy(how, plain));
  return sparse && sparse->bytes.size() < all.bytes.size() ? std::move(*sparse) : std::move(all);
}

bool IsPackedBy(const ValuePacking& how, const BlockTensor& tensor) {
  return ValuesOf(tensor.packing) == &how;
}

bool IsLossless(const BlockTensor& tensor) {
  if (tensor.packing.empty() || tensor.packing == kSparsePacking) return true;
  const ValuePacking* how = ValuesOf(tensor.packing);
  return how != nullptr && how->lossless;
}

Result<BlockTensor> Unpacked(const BlockTensor& tensor) {
  if (tensor.packing.empty()) return tensor;
  if (tensor.packing == kSparsePacking) {
    WEFT_TRY_ASSIGN(BlockTensor plain, UnpackSparse(tensor));
    if (IsFinite(plain)) return plain;
    return InvalidArgument(
        Str("tensor ", tensor.name, ": got NaN or an infinity, wanted finite values"));
  }
  const ValuePacking* how = ValuesOf(tensor.packing);
  if (how == nullptr) return Unknown(tensor);
  return tensor.packing.starts_with(kSparsePrefix) ? UnpackSparseBy(*how, tensor)
                                                   : how->unpack(tensor);
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
  const uint64_t counts = BitsOfMagnitude(plain->dtype);
  const ByteSpan bytes = plain->bytes.span();
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof(word), bytes.size() - i));
    if ((word & counts) != 0) return false;
  }
  return true;
}

}  // namespace weft
