// A payload: tensors must lie within the block, and what decodes must encode to bytes that decode
// to the same.

#include "common/wire/tensor_block.h"

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/wire/random_blocks.h"

namespace weft::fuzz {
namespace {

void CheckInside(const std::vector<BlockTensor>& tensors, const Blob& whole) {
  for (const BlockTensor& tensor : tensors) {
    WEFT_CHECK(tensor.shape.size() <= limits::kTensorDimensionsMax);
    if (tensor.bytes.empty()) continue;
    WEFT_CHECK(tensor.bytes.data() >= whole.data() &&
                   tensor.bytes.data() + tensor.bytes.size() <= whole.data() + whole.size(),
               tensor.name);
  }
}

void Run(std::string_view input) {
  const Blob bytes = Blob::Copy(input);
  const Result<TensorBlock> block = DecodeTensorBlock(bytes);
  if (!block.ok()) return;
  for (const BlockSection& section : block->sections) {
    WEFT_CHECK(block->Find(section.role) == &section);
    CheckInside(section.dense, bytes);
    for (const BlockSite& site : section.sites) CheckInside(site.tensors, bytes);
  }
  (void)CheckFinite(*block).ok();
  const Blob once = EncodeTensorBlock(*block);
  const Result<TensorBlock> again = DecodeTensorBlock(once);
  WEFT_CHECK(again.ok(), again.status());
  WEFT_CHECK(EncodeTensorBlock(*again).view() == once.view());
}

Seeds MakeSeeds() {
  Seeds seeds;
  RandomStream random(2);
  while (seeds.size() < 12) {
    const Blob block = EncodeTensorBlock(RandomBlock(random));
    if (block.size() < 8192) seeds.emplace_back(block.view());  // mutations find the manifest
  }
  return seeds;
}

}  // namespace

Target TensorBlocks() { return {"tensor_block", Run, MakeSeeds}; }

}  // namespace weft::fuzz
