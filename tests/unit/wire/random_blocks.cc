#include "tests/unit/wire/random_blocks.h"

#include "common/base/str.h"
#include "tests/unit/wire/random_messages.h"

namespace weft {
namespace {

Blob RandomBytes(RandomStream& random, size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.NextU32());
  return Blob::Adopt(std::move(bytes));
}

BlockTensor RandomTensor(RandomStream& random, std::string name) {
  BlockTensor tensor;
  tensor.name = std::move(name);
  tensor.dtype = static_cast<DType>(random.Below(kDTypes.size()));
  size_t bytes = DTypeBytes(tensor.dtype);
  tensor.shape.resize(random.Below(4));
  for (int64_t& side : tensor.shape) {
    side = static_cast<int64_t>(random.Below(20));
    bytes *= static_cast<size_t>(side);
  }
  tensor.bytes = RandomBytes(random, bytes);
  return tensor;
}

}  // namespace

TensorBlock RandomBlock(RandomStream& random) {
  TensorBlock block;
  block.codec = RandomName(random);
  for (const char* role : {"adapter", "frozen"}) {
    BlockSection& section = block.sections.emplace_back();
    section.role = role;
    section.spec = RandomSpec(random);
    const uint64_t sites = random.Below(6);
    for (uint64_t i = 0; i < sites; ++i) {
      BlockSite& site = section.sites.emplace_back();
      site.site = {Str("model.layers.", i, ".q_proj"), 1 + static_cast<int64_t>(random.Below(64)),
                   7};
      site.tensors.push_back(RandomTensor(random, "A"));
      site.tensors.push_back(RandomTensor(random, "B"));
    }
    if (random.Below(2) == 1) section.dense.push_back(RandomTensor(random, "score.weight"));
  }
  return block;
}

}  // namespace weft
