#pragma once
// TensorBlock: an adapter as bytes, torch-free. One block holds sections ("adapter": what is
// trained, "frozen": what is applied beside it), each an AdapterSpec, ordered sites with named
// tensors, and a dense part.
//
// Canonical form: magic "WEFTTB01" · u64 little-endian manifest length · manifest (Cap'n Proto,
// protocols/tensors.capnp) · zero padding to 64 · tensor data, each tensor 64-byte aligned, in
// manifest order without gaps beyond that padding. The same content gives the same bytes, so a
// block's SHA-256 names the adapter.
//
// Compact form, for the wire: magic "WEFTTB02" · u64 length of the compressed manifest · the same
// manifest by zstd · padding to 8 · tensor data aligned to 8. An adapter of a few hundred layers
// and a few hundred numbers for each (NOLA) is not outweighed by its own list of contents.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/base/result.h"
#include "common/plan/adapter_spec.h"
#include "common/plan/dtype.h"

namespace weft {

struct BlockTensor {
  std::string name;  // "A", "B", … within a site; full module path + parameter in the dense part
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  Blob bytes;  // row-major, little-endian; shares the block's memory
  /// The earlier site whose tensor of this name it is; `bytes` are that one's.
  std::optional<size_t> shared_with = std::nullopt;
  std::string packing = "";  // not empty: `bytes` are packed by a codec, of any length up to
                             // PackedBytesMax
};

/// A packed tensor is never worth more than its plain bytes, a bit for each element and a header.
[[nodiscard]] uint64_t PackedBytesMax(DType dtype, const std::vector<int64_t>& shape);

enum class BlockForm { kCanonical, kCompact };

struct BlockSite {
  LinearSite site;  // path and the layer's shape
  std::vector<BlockTensor> tensors;
};

struct BlockSection {
  std::string role;  // "adapter", "frozen"
  AdapterSpec spec;
  std::vector<BlockSite> sites;    // ordered as the base model lists its layers
  std::vector<BlockTensor> dense;  // whole modules (PEFT's modules_to_save)
  bool delta = false;              // the tensors are what changed in those that were sent
  std::string codec = "";          // not empty: of this section, in place of the block's
};

struct TensorBlock {
  std::string codec = "float32";  // how the codec that wrote it encoded the tensors
  std::vector<BlockSection> sections;

  [[nodiscard]] const BlockSection* Find(const std::string& role) const;
};

/// The block's bytes. Sizes that do not match shape × dtype are a bug (checked).
[[nodiscard]] Blob EncodeTensorBlock(const TensorBlock& block,
                                     BlockForm form = BlockForm::kCanonical);

/// SHA-256 (hex) of the canonical form, without taking memory for it.
[[nodiscard]] std::string TensorBlockSha256(const TensorBlock& block);

/// Parses bytes from a peer or a file: every length, offset, shape, name and count is checked
/// against limits.h before memory is taken; kInvalidArgument or kDataLoss says what was wrong.
/// Tensors share `bytes`. Values are not looked at, packed ones not unpacked. The manifest,
/// unpacked, may be of `manifest_bytes_max` bytes: what it lists takes several times as many.
[[nodiscard]] Result<TensorBlock> DecodeTensorBlock(
    const Blob& bytes, uint64_t manifest_bytes_max = limits::kManifestBytesMax);

/// Is no element NaN or infinite? Runs at the speed of memory. True for a packed tensor, whose
/// codec looks when it unpacks.
[[nodiscard]] bool IsFinite(const BlockTensor& tensor);

/// kInvalidArgument naming site and tensor if any element of any floating-point tensor is NaN or
/// infinite. Packed ones are checked when they are unpacked.
[[nodiscard]] Status CheckFinite(const TensorBlock& block);

}  // namespace weft
