// Packed tensors: what unpacks packs to the very same bytes.

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/codec/sparse.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

// Input: element type, two sides, then the packed bytes.
constexpr size_t kHead = 3;

void Run(std::string_view input) {
  if (input.size() < kHead) return;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(input[i]); };
  const std::optional<DType> dtype = DTypeFromNumber(byte(0));
  if (!dtype) return;
  BlockTensor packed{"A", *dtype, {byte(1), byte(2)}, Blob::Copy(input.substr(kHead))};
  packed.packing = kSparsePacking;
  const Result<BlockTensor> plain = UnpackSparse(packed);
  if (plain.ok()) (void)IsFinite(*plain);
  if (!plain.ok()) {
    WEFT_CHECK(plain.status().code() == Code::kInvalidArgument, plain.status());
    return;
  }
  const uint64_t elements = uint64_t{byte(1)} * byte(2);
  WEFT_CHECK(plain->bytes.size() == elements * DTypeBytes(*dtype));
  const std::optional<BlockTensor> again = PackSparse(*plain);
  // What is not shorter than plain bytes is no packing that we would write, but means the same.
  if (again) WEFT_CHECK(again->bytes.view() == packed.bytes.view());
}

Seeds MakeSeeds() {
  Seeds seeds;
  RandomStream draw(5);
  while (seeds.size() < 12) {
    const auto rows = static_cast<uint8_t>(1 + draw.Below(8));
    const auto length = static_cast<uint8_t>(20 + draw.Below(200));
    std::vector<std::byte> bytes(size_t{rows} * length * sizeof(float));
    for (size_t p = 0; p < bytes.size(); p += sizeof(float)) {
      if (draw.Below(10) == 0) bytes[p + 3] = std::byte{0x3F};
    }
    const BlockTensor plain{"A", DType::kFloat32, {rows, length}, Blob::Adopt(std::move(bytes))};
    const std::optional<BlockTensor> packed = PackSparse(plain);
    if (!packed) continue;
    std::string seed = {static_cast<char>(DType::kFloat32), static_cast<char>(rows),
                        static_cast<char>(length)};
    seeds.push_back(seed.append(packed->bytes.view()));
  }
  return seeds;
}

}  // namespace

Target SparseTensors() { return {"sparse_tensor", Run, MakeSeeds}; }

}  // namespace weft::fuzz
