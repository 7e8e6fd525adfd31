// Tensors packed by planes: what unpacks packs to bytes that unpack to the same.

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/codec/planes.h"
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
  packed.packing = PlanesPacking().name;
  const Result<BlockTensor> plain = PlanesPacking().unpack(packed);
  if (!plain.ok()) {
    WEFT_CHECK(plain.status().code() == Code::kInvalidArgument, plain.status());
    return;
  }
  WEFT_CHECK(plain->bytes.size() == size_t{byte(1)} * byte(2) * DTypeBytes(*dtype));
  WEFT_CHECK(IsFinite(*plain));
  const Result<BlockTensor> again = PlanesPacking().unpack(*PlanesPacking().pack(*plain));
  WEFT_CHECK(again.ok() && again->bytes.view() == plain->bytes.view());
}

Seeds MakeSeeds() {
  Seeds seeds;
  RandomStream draw(6);
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (int turn = 0; turn < 4; ++turn) {
      const auto rows = static_cast<uint8_t>(1 + draw.Below(8));
      const auto length = static_cast<uint8_t>(1 + draw.Below(200));
      std::vector<std::byte> bytes(size_t{rows} * length * DTypeBytes(dtype));
      for (std::byte& one : bytes) one = static_cast<std::byte>(draw.Below(0x40));
      const BlockTensor plain{"A", dtype, {rows, length}, Blob::Adopt(std::move(bytes))};
      std::string seed = {static_cast<char>(dtype), static_cast<char>(rows),
                          static_cast<char>(length)};
      seeds.push_back(seed.append(PlanesPacking().pack(plain)->bytes.view()));
    }
  }
  return seeds;
}

}  // namespace

Target PlanesTensors() { return {"planes_tensor", Run, MakeSeeds}; }

}  // namespace weft::fuzz
