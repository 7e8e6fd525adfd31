#include "common/codec/planes.h"

#include <bit>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <zstd.h>

#include "common/base/check.h"
#include "common/base/str.h"

namespace weft {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor blocks are little-endian");

constexpr std::string_view kPlanes = "planes";
// The fastest strategy, and no match shorter than zstd's longest minimum: what repeats among
// exponents repeats by chance, and is shorter as Huffman codes.
constexpr std::pair<ZSTD_cParameter, int> kParameters[] = {
    {ZSTD_c_compressionLevel, 1}, {ZSTD_c_strategy, ZSTD_fast}, {ZSTD_c_minMatch, 7}};

// Plane b of N holds byte b of every turned element.
template <typename Word>
void Split(const std::byte* in, size_t elements, std::byte* planes) {
  for (size_t i = 0; i < elements; ++i) {
    Word word;
    std::memcpy(&word, in + i * sizeof(Word), sizeof(Word));
    word = std::rotl(word, 1);
    for (size_t b = 0; b < sizeof(Word); ++b) {
      planes[b * elements + i] = static_cast<std::byte>(word >> (8 * b));
    }
  }
}

template <typename Word>
void Join(const std::byte* planes, size_t elements, std::byte* out) {
  for (size_t i = 0; i < elements; ++i) {
    Word word = 0;
    for (size_t b = 0; b < sizeof(Word); ++b) {
      const auto byte = std::to_integer<Word>(planes[b * elements + i]);
      word = static_cast<Word>(word | static_cast<Word>(byte << (8 * b)));
    }
    word = std::rotr(word, 1);
    std::memcpy(out + i * sizeof(Word), &word, sizeof(Word));
  }
}

// Writes one frame and returns its length.
size_t Compress(const std::byte* in, size_t bytes, std::byte* out, size_t room) {
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(),
                                                                     ZSTD_freeCCtx);
  WEFT_CHECK(context != nullptr);
  for (const auto& [parameter, value] : kParameters) {
    WEFT_CHECK(ZSTD_isError(ZSTD_CCtx_setParameter(context.get(), parameter, value)) == 0);
  }
  const size_t written = ZSTD_compress2(context.get(), out, room, in, bytes);
  WEFT_CHECK(ZSTD_isError(written) == 0, ZSTD_getErrorName(written));
  return written;
}

Result<BlockTensor> Pack(const BlockTensor& plain) {
  WEFT_CHECK(plain.packing.empty() && PlanesFit(plain.dtype), plain.name);
  const size_t width = DTypeBytes(plain.dtype);
  const size_t elements = plain.bytes.size() / width;
  std::vector<std::byte> planes(plain.bytes.size());
  if (width == 2) {
    Split<uint16_t>(plain.bytes.data(), elements, planes.data());
  } else {
    Split<uint32_t>(plain.bytes.data(), elements, planes.data());
  }
  const size_t low = (width - 1) * elements;
  std::vector<std::byte> bytes(low + ZSTD_compressBound(elements));
  if (low > 0) std::memcpy(bytes.data(), planes.data(), low);
  const size_t high =
      Compress(planes.data() + low, elements, bytes.data() + low, bytes.size() - low);
  bytes.resize(low + high);
  BlockTensor packed = plain;
  packed.packing = kPlanes;
  packed.bytes = Blob::Adopt(std::move(bytes));
  return packed;
}

// The memory taken is that of the shape, which the reader of the block has bounded; zstd is given
// exactly that much to write to.
Result<BlockTensor> Unpack(const BlockTensor& packed) {
  const auto wrong = [&](const std::string& what) {
    return InvalidArgument(Str("tensor ", packed.name, " packed as ", kPlanes, ": ", what));
  };
  if (!PlanesFit(packed.dtype)) {
    return wrong(Str("its elements are ", DTypeName(packed.dtype), ", wanted F32, F16 or BF16"));
  }
  size_t elements = 1;
  for (const int64_t side : packed.shape) elements *= static_cast<size_t>(side);
  const size_t width = DTypeBytes(packed.dtype);
  const size_t low = (width - 1) * elements;
  const ByteSpan bytes = packed.bytes.span();
  if (bytes.size() < low) {
    return wrong(Str("got ", bytes.size(), " bytes, wanted at least ", low));
  }
  std::vector<std::byte> planes(width * elements);
  if (low > 0) std::memcpy(planes.data(), bytes.data(), low);
  const size_t frame = bytes.size() - low;
  const size_t own = ZSTD_findFrameCompressedSize(bytes.data() + low, frame);
  if (ZSTD_isError(own) != 0 || own != frame) return wrong("its exponents are not one zstd frame");
  const size_t got = ZSTD_decompress(planes.data() + low, elements, bytes.data() + low, frame);
  if (ZSTD_isError(got) != 0) {
    return wrong(Str("its exponents cannot be decompressed: ", ZSTD_getErrorName(got)));
  }
  if (got != elements) return wrong(Str("got ", got, " exponents, wanted ", elements));
  std::vector<std::byte> out(width * elements);
  if (width == 2) {
    Join<uint16_t>(planes.data(), elements, out.data());
  } else {
    Join<uint32_t>(planes.data(), elements, out.data());
  }
  BlockTensor plain = packed;
  plain.packing.clear();
  plain.bytes = Blob::Adopt(std::move(out));
  if (IsFinite(plain)) return plain;
  return wrong("got NaN or an infinity, wanted finite values");
}

}  // namespace

bool PlanesFit(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat16 || dtype == DType::kBFloat16;
}

const ValuePacking& PlanesPacking() {
  static const ValuePacking packing{kPlanes, true, Pack, Unpack};
  return packing;
}

}  // namespace weft
