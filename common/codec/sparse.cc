#include "common/codec/sparse.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "common/base/str.h"

namespace weft {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor blocks are little-endian");

constexpr uint8_t kBitmask = 0;
constexpr uint8_t kGaps = 1;
constexpr uint64_t kHeaderBytes = 5;  // form and count
constexpr uint64_t kElementsMax = std::numeric_limits<uint32_t>::max();

uint64_t BytesOfBits(uint64_t bits) { return (bits + 7) / 8; }

// How positions are laid out for K of N elements.
struct Layout {
  Layout(uint64_t elements, uint64_t count)
      : low_bits(count == 0 ? 0 : static_cast<unsigned>(std::bit_width(elements / count) - 1)),
        low_bytes(BytesOfBits(count * low_bits)),
        high_bits(count == 0 ? 0 : count + ((elements - 1) >> low_bits)),
        bitmask_bytes(BytesOfBits(elements)) {}

  [[nodiscard]] uint64_t gaps_bytes() const { return low_bytes + BytesOfBits(high_bits); }
  [[nodiscard]] bool prefers_gaps() const { return gaps_bytes() < bitmask_bytes; }
  [[nodiscard]] uint64_t bytes() const { return std::min(gaps_bytes(), bitmask_bytes); }

  unsigned low_bits;
  uint64_t low_bytes;
  uint64_t high_bits;
  uint64_t bitmask_bytes;
};

// ---- bits, lowest first ----

bool BitAt(const std::byte* bytes, uint64_t bit) {
  return ((std::to_integer<unsigned>(bytes[bit / 8]) >> (bit % 8)) & 1U) != 0;
}

void SetBit(std::byte* bytes, uint64_t bit) {
  bytes[bit / 8] |= static_cast<std::byte>(1U << (bit % 8));
}

// `width` ≤ 32 bits from `bit` on; `size` bytes may be read.
uint64_t BitsAt(const std::byte* bytes, uint64_t size, uint64_t bit, unsigned width) {
  if (width == 0) return 0;
  const uint64_t first = bit / 8;
  uint64_t word = 0;
  std::memcpy(&word, bytes + first, std::min<uint64_t>(sizeof(word), size - first));
  return (word >> (bit % 8)) & ((uint64_t{1} << width) - 1);
}

void PutBits(std::byte* bytes, uint64_t size, uint64_t bit, unsigned width, uint64_t value) {
  if (width == 0) return;
  const uint64_t first = bit / 8;
  const uint64_t length = std::min<uint64_t>(sizeof(uint64_t), size - first);
  uint64_t word = 0;
  std::memcpy(&word, bytes + first, length);
  word |= value << (bit % 8);
  std::memcpy(bytes + first, &word, length);
}

// Calls visit(position) for every set bit of the first `bits` bits, in order.
template <typename Visitor>
void ForEachBit(const std::byte* bytes, uint64_t bits, const Visitor& visit) {
  const uint64_t size = BytesOfBits(bits);
  for (uint64_t begin = 0; begin < size; begin += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + begin, std::min<uint64_t>(sizeof(word), size - begin));
    while (word != 0) {
      visit(8 * begin + static_cast<uint64_t>(std::countr_zero(word)));
      word &= word - 1;
    }
  }
}

// Are the bits from `bits` to the end of the last byte zero?
bool IsPadded(const std::byte* bytes, uint64_t bits) {
  return bits % 8 == 0 || (std::to_integer<unsigned>(bytes[bits / 8]) >> (bits % 8)) == 0;
}

// ---- elements ----

bool IsZeroElement(const std::byte* element, size_t bytes) {
  uint64_t word = 0;
  std::memcpy(&word, element, bytes);
  return word == 0;
}

template <typename Word>
Word WordAt(ByteSpan bytes, uint64_t index) {
  Word word;
  std::memcpy(&word, bytes.data() + index * sizeof(Word), sizeof(Word));
  return word;
}

template <typename Word>
uint64_t CountElements(ByteSpan bytes) {
  uint64_t count = 0;
  for (uint64_t p = 0; p < bytes.size() / sizeof(Word); ++p) {
    count += WordAt<Word>(bytes, p) != 0 ? 1 : 0;
  }
  return count;
}

template <typename Word>
void FindElements(ByteSpan bytes, std::vector<uint32_t>& positions) {
  for (uint64_t p = 0; p < bytes.size() / sizeof(Word); ++p) {
    if (WordAt<Word>(bytes, p) != 0) positions.push_back(static_cast<uint32_t>(p));
  }
}

// Calls use(Word()) with the unsigned type of that many bytes.
template <typename Use>
auto WithWord(size_t bytes, const Use& use) {
  switch (bytes) {
    case 1:
      return use(uint8_t());
    case 2:
      return use(uint16_t());
    case 4:
      return use(uint32_t());
    default:
      return use(uint64_t());
  }
}

// `shape`'s elements; the reader of the block has bounded their bytes.
uint64_t ElementsOf(const std::vector<int64_t>& shape) {
  uint64_t elements = 1;
  for (const int64_t side : shape) elements *= static_cast<uint64_t>(side);
  return elements;
}

void WritePositions(const std::vector<uint32_t>& positions, const Layout& layout, std::byte* out) {
  if (!layout.prefers_gaps()) {
    for (const uint32_t p : positions) SetBit(out, p);
    return;
  }
  std::byte* const high = out + layout.low_bytes;
  const uint64_t low_mask = (uint64_t{1} << layout.low_bits) - 1;
  for (uint64_t i = 0; i < positions.size(); ++i) {
    PutBits(out, layout.low_bytes, i * layout.low_bits, layout.low_bits, positions[i] & low_mask);
    SetBit(high, (positions[i] >> layout.low_bits) + i);
  }
}

// Fills `positions`, or says what is wrong.
std::string ReadBitmask(const std::byte* in, uint64_t elements, uint64_t count,
                        std::vector<uint32_t>& positions) {
  if (!IsPadded(in, elements)) return "a position is out of range";
  ForEachBit(in, elements, [&](uint64_t p) { positions.push_back(static_cast<uint32_t>(p)); });
  if (positions.size() == count) return "";
  return Str("its mask has ", positions.size(), " positions, its head says ", count);
}

std::string ReadGaps(const std::byte* in, uint64_t elements, uint64_t count, const Layout& layout,
                     std::vector<uint32_t>& positions) {
  const std::byte* const high = in + layout.low_bytes;
  if (!IsPadded(in, count * layout.low_bits) || !IsPadded(high, layout.high_bits)) {
    return "its padding is not zero";
  }
  std::string wrong;
  uint64_t seen = 0;
  ForEachBit(high, layout.high_bits, [&](uint64_t bit) {
    const uint64_t i = seen++;
    if (i >= count || !wrong.empty()) return;
    const uint64_t low = BitsAt(in, layout.low_bytes, i * layout.low_bits, layout.low_bits);
    const uint64_t p = ((bit - i) << layout.low_bits) | low;
    if (p >= elements) wrong = Str("position ", p, " is out of range, it has ", elements);
    if (!positions.empty() && p <= positions.back()) {
      wrong = Str("position ", p, " comes behind ", positions.back(), ": unsorted or repeated");
    }
    positions.push_back(static_cast<uint32_t>(p));
  });
  if (wrong.empty() && seen != count) {
    return Str("it has ", seen, " positions, its head says ", count);
  }
  return wrong;
}

// What the head of packed bytes says, once the lengths fit.
struct Head {
  uint64_t elements;
  uint64_t count;
  Layout layout;
};

Status WrongBytes(const BlockTensor& packed, const std::string& what) {
  return InvalidArgument(Str("tensor ", packed.name, ": sparse bytes: ", what));
}

Result<Head> ReadHead(const BlockTensor& packed) {
  const ByteSpan bytes = packed.bytes.span();
  const uint64_t elements = ElementsOf(packed.shape);
  if (bytes.size() < kHeaderBytes) {
    return WrongBytes(packed, Str("got ", bytes.size(), ", too few for a head"));
  }
  if (elements > kElementsMax) {
    return WrongBytes(packed, Str(elements, " elements are more than can be packed"));
  }
  uint32_t count = 0;
  std::memcpy(&count, bytes.data() + 1, sizeof(count));
  if (count > elements) {
    return WrongBytes(packed, Str("says ", count, " of ", elements, " elements"));
  }
  const Layout layout(elements, count);
  const uint8_t form = layout.prefers_gaps() ? kGaps : kBitmask;
  if (std::to_integer<uint8_t>(bytes[0]) != form) {
    return WrongBytes(packed, Str("form ", std::to_integer<int>(bytes[0]), ", wanted ", int{form},
                                  " for ", count, " of ", elements, " elements"));
  }
  if (bytes.size() < kHeaderBytes + layout.bytes()) {
    return WrongBytes(packed,
                      Str("got ", bytes.size(), ", wanted at least ", kHeaderBytes + layout.bytes(),
                          " for ", count, " of ", elements, " elements"));
  }
  return Head{elements, count, layout};
}

Result<std::vector<uint32_t>> ReadPositions(const BlockTensor& packed, const Head& head) {
  const std::byte* const in = packed.bytes.data() + kHeaderBytes;
  std::vector<uint32_t> positions;
  positions.reserve(head.count);
  const std::string wrong = head.layout.prefers_gaps()
                                ? ReadGaps(in, head.elements, head.count, head.layout, positions)
                                : ReadBitmask(in, head.elements, head.count, positions);
  if (!wrong.empty()) return WrongBytes(packed, wrong);
  return positions;
}

uint32_t CountOf(const BlockTensor& plain) {
  return static_cast<uint32_t>(WithWord(DTypeBytes(plain.dtype), [&](auto word) {
    return CountElements<decltype(word)>(plain.bytes.span());
  }));
}

SparseParts Split(const BlockTensor& plain, uint32_t count) {
  const size_t width = DTypeBytes(plain.dtype);
  const Layout layout(plain.bytes.size() / width, count);
  std::vector<uint32_t> positions;
  positions.reserve(count);
  WithWord(width, [&](auto word) { FindElements<decltype(word)>(plain.bytes.span(), positions); });
  SparseParts parts;
  parts.support.resize(kHeaderBytes + layout.bytes());
  parts.support[0] = static_cast<std::byte>(layout.prefers_gaps() ? kGaps : kBitmask);
  std::memcpy(parts.support.data() + 1, &count, sizeof(count));
  WritePositions(positions, layout, parts.support.data() + kHeaderBytes);
  std::vector<std::byte> values(count * width);
  std::byte* out = values.data();
  for (const uint32_t p : positions) {
    std::memcpy(out, plain.bytes.data() + p * width, width);
    out += width;
  }
  parts.values = {plain.name, plain.dtype, {int64_t{count}}, Blob::Adopt(std::move(values))};
  return parts;
}

}  // namespace

uint64_t SparseBytes(uint64_t elements, uint64_t count, DType dtype) {
  return kHeaderBytes + Layout(elements, count).bytes() + count * DTypeBytes(dtype);
}

std::optional<BlockTensor> PackSparse(const BlockTensor& plain) {
  WEFT_CHECK(plain.packing.empty(), plain.name, " is packed already: ", plain.packing);
  const uint64_t elements = plain.bytes.size() / DTypeBytes(plain.dtype);
  if (elements > kElementsMax) return std::nullopt;
  // Most tensors are dense: those are only counted.
  const uint32_t count = CountOf(plain);
  if (SparseBytes(elements, count, plain.dtype) >= plain.bytes.size()) return std::nullopt;
  const SparseParts parts = Split(plain, count);
  return JoinSparse(plain, parts.support, parts.values.bytes, std::string(kSparsePacking));
}

std::optional<SparseParts> SplitSparse(const BlockTensor& plain) {
  WEFT_CHECK(plain.packing.empty(), plain.name, " is packed already: ", plain.packing);
  const uint64_t elements = plain.bytes.size() / DTypeBytes(plain.dtype);
  if (elements > kElementsMax) return std::nullopt;
  const uint32_t count = CountOf(plain);
  if (count == elements) return std::nullopt;
  return Split(plain, count);
}

BlockTensor JoinSparse(const BlockTensor& plain, ByteSpan support, const Blob& values,
                       std::string packing) {
  std::vector<std::byte> bytes(support.size() + values.size());
  std::memcpy(bytes.data(), support.data(), support.size());
  if (!values.empty()) std::memcpy(bytes.data() + support.size(), values.data(), values.size());
  BlockTensor packed = plain;
  packed.packing = std::move(packing);
  packed.bytes = Blob::Adopt(std::move(bytes));
  return packed;
}

Result<SparseView> ReadSparse(const BlockTensor& packed) {
  WEFT_TRY_ASSIGN(const Head head, ReadHead(packed));
  SparseView view;
  WEFT_TRY_ASSIGN(view.positions, ReadPositions(packed, head));
  const uint64_t begin = kHeaderBytes + head.layout.bytes();
  view.values = {packed.name,
                 packed.dtype,
                 {static_cast<int64_t>(head.count)},
                 packed.bytes.Slice(begin, packed.bytes.size() - begin)};
  return view;
}

BlockTensor Scatter(const BlockTensor& packed, const std::vector<uint32_t>& positions,
                    ByteSpan values) {
  const size_t width = DTypeBytes(packed.dtype);
  WEFT_CHECK(values.size() == positions.size() * width, packed.name);
  std::vector<std::byte> bytes(ElementsOf(packed.shape) * width);
  const std::byte* value = values.data();
  for (const uint32_t p : positions) {
    std::memcpy(bytes.data() + p * width, value, width);
    value += width;
  }
  BlockTensor plain = packed;
  plain.packing.clear();
  plain.bytes = Blob::Adopt(std::move(bytes));
  return plain;
}

Result<BlockTensor> UnpackSparse(const BlockTensor& packed) {
  WEFT_TRY_ASSIGN(const Head head, ReadHead(packed));
  const uint64_t wanted = SparseBytes(head.elements, head.count, packed.dtype);
  if (packed.bytes.size() != wanted) {
    return WrongBytes(packed, Str("got ", packed.bytes.size(), ", wanted ", wanted, " for ",
                                  head.count, " of ", head.elements, " elements"));
  }
  WEFT_TRY_ASSIGN(const SparseView view, ReadSparse(packed));
  const size_t width = DTypeBytes(packed.dtype);
  for (size_t i = 0; i < view.positions.size(); ++i) {
    if (IsZeroElement(view.values.bytes.data() + i * width, width)) {
      return WrongBytes(packed,
                        Str("the element at ", view.positions[i], " is zero, which is not packed"));
    }
  }
  return Scatter(packed, view.positions, view.values.bytes.span());
}

}  // namespace weft
