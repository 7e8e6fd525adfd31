#include "common/wire/tensor_block.h"

#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <set>

#include <capnp/serialize.h>
#include <protocols/tensors.capnp.h>
#include <zstd.h>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/crypto/digest.h"
#include "common/wire/spec_codec.h"

namespace weft {
namespace {

using wire::AsCapnp;
using wire::FieldReader;
using wire::ListSize;

constexpr size_t kMagicBytes = 8;
constexpr size_t kHeaderBytes = 16;  // magic and the manifest's length
constexpr size_t kAlignment = 64;    // of the memory, and of tensors in the canonical form
constexpr uint16_t kManifestVersion = 1;
constexpr uint64_t kVisitsMax = 4;  // of a manifest's words, on average

struct FormRules {
  std::string_view magic;
  size_t alignment;
};
constexpr FormRules kCanonicalRules{"WEFTTB01", kAlignment};
constexpr FormRules kCompactRules{"WEFTTB02", 8};
constexpr int kZstdLevel = 3;

uint64_t AlignUp(uint64_t value, size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Bytes of a tensor, nullopt if a side is negative or the product passes the payload limit.
std::optional<uint64_t> TensorBytes(DType dtype, const std::vector<int64_t>& shape) {
  uint64_t bytes = DTypeBytes(dtype);
  bool empty = false;
  for (const int64_t side : shape) {
    if (side < 0) return std::nullopt;
    empty = empty || side == 0;
    const uint64_t factor = side == 0 ? 1 : static_cast<uint64_t>(side);
    if (factor > limits::kPayloadBytesMax / bytes) return std::nullopt;
    bytes *= factor;
  }
  return empty ? 0 : bytes;
}

struct AlignedDelete {
  void operator()(std::byte* bytes) const {
    ::operator delete[](bytes, std::align_val_t{kAlignment});
  }
};

std::shared_ptr<std::byte> AlignedBuffer(size_t size) {
  auto* bytes = static_cast<std::byte*>(::operator new[](size, std::align_val_t{kAlignment}));
  return {bytes, AlignedDelete{}};
}

// ---- encoding ----

// Walks the tensors in manifest order and gives each its place.
class Layout {
 public:
  explicit Layout(size_t alignment) : alignment_(alignment) {}

  uint64_t Place(const BlockTensor& tensor) {
    const std::optional<uint64_t> bytes = TensorBytes(tensor.dtype, tensor.shape);
    const bool fits =
        bytes && (tensor.packing.empty()
                      ? *bytes == tensor.bytes.size()
                      : tensor.bytes.size() <= PackedBytesMax(tensor.dtype, tensor.shape));
    WEFT_CHECK(fits, "tensor ", tensor.name, ": ", tensor.bytes.size(),
               " bytes do not match its shape");
    const uint64_t offset = AlignUp(end_, alignment_);
    end_ = offset + tensor.bytes.size();
    tensors_.push_back(&tensor);
    return offset;
  }
  [[nodiscard]] uint64_t end() const { return end_; }
  [[nodiscard]] const std::vector<const BlockTensor*>& tensors() const { return tensors_; }

 private:
  size_t alignment_;
  uint64_t end_ = 0;
  std::vector<const BlockTensor*> tensors_;
};

void WriteTensors(capnp::List<proto::Tensor>::Builder out, const std::vector<BlockTensor>& tensors,
                  Layout& layout) {
  for (unsigned i = 0; i < out.size(); ++i) {
    const BlockTensor& tensor = tensors[i];
    out[i].setName(AsCapnp(tensor.name));
    const std::string dtype(DTypeName(tensor.dtype));
    out[i].setDtype(AsCapnp(dtype));
    auto shape = out[i].initShape(ListSize(tensor.shape.size()));
    for (unsigned d = 0; d < shape.size(); ++d) shape.set(d, tensor.shape[d]);
    if (tensor.shared_with) {
      out[i].setSharedWith(static_cast<uint32_t>(*tensor.shared_with) + 1);
      continue;
    }
    if (!tensor.packing.empty()) {
      out[i].setPacking(AsCapnp(tensor.packing));
      out[i].setPackedBytes(tensor.bytes.size());
    }
    out[i].setOffset(layout.Place(tensor));
  }
}

void WriteManifest(proto::TensorManifest::Builder out, const TensorBlock& block, Layout& layout) {
  out.setVersion(kManifestVersion);
  out.setCodec(AsCapnp(block.codec));
  auto sections = out.initSections(ListSize(block.sections.size()));
  for (unsigned s = 0; s < sections.size(); ++s) {
    const BlockSection& section = block.sections[s];
    sections[s].setRole(AsCapnp(section.role));
    wire::WriteSpec(sections[s].initSpec(), section.spec);
    auto sites = sections[s].initSites(ListSize(section.sites.size()));
    for (unsigned i = 0; i < sites.size(); ++i) {
      const BlockSite& site = section.sites[i];
      wire::WriteSite(sites[i].initSite(), site.site);
      WriteTensors(sites[i].initTensors(ListSize(site.tensors.size())), site.tensors, layout);
    }
    WriteTensors(sections[s].initDense(ListSize(section.dense.size())), section.dense, layout);
    sections[s].setDelta(section.delta);
    if (!section.codec.empty()) sections[s].setCodec(AsCapnp(section.codec));
  }
}

// The manifest in Cap'n Proto's canonical form, one segment: its bytes depend on the content alone,
// not on how a version of the library lays out its arena.
kj::Array<capnp::word> CanonicalManifest(const TensorBlock& block, Layout& layout) {
  capnp::MallocMessageBuilder builder;
  auto manifest = builder.initRoot<proto::TensorManifest>();
  WriteManifest(manifest, block, layout);
  return capnp::canonicalize(manifest.asReader());
}

void PutLittleEndian(std::byte* out, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
}

uint64_t GetLittleEndian(const std::byte* in, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value |= std::to_integer<uint64_t>(in[i]) << (8 * i);
  return value;
}

std::vector<std::byte> Compressed(ByteSpan bytes) {
  std::vector<std::byte> compressed(ZSTD_compressBound(bytes.size()));
  const size_t size =
      ZSTD_compress(compressed.data(), compressed.size(), bytes.data(), bytes.size(), kZstdLevel);
  WEFT_CHECK(ZSTD_isError(size) == 0, ZSTD_getErrorName(size));
  compressed.resize(size);
  return compressed;
}

// A block's bytes, one piece after the other.
class Pieces {
 public:
  Pieces(const TensorBlock& block, BlockForm form)
      : rules_(form == BlockForm::kCompact ? kCompactRules : kCanonicalRules),
        layout_(rules_.alignment) {
    const kj::Array<capnp::word> manifest = CanonicalManifest(block, layout_);
    const size_t segment_bytes = manifest.size() * sizeof(capnp::word);
    std::vector<std::byte> stored(segment_bytes + sizeof(uint64_t));  // with the segment table
    WEFT_CHECK(stored.size() <= limits::kManifestBytesMax, "a manifest of ", stored.size(),
               " bytes");
    PutLittleEndian(stored.data(), 0, 4);  // segment table: one segment, of so many words
    PutLittleEndian(stored.data() + 4, manifest.size(), 4);
    std::memcpy(stored.data() + 8, manifest.begin(), segment_bytes);
    if (form == BlockForm::kCompact) stored = Compressed(stored);
    head_.resize(AlignUp(kHeaderBytes + stored.size(), rules_.alignment));
    std::memcpy(head_.data(), rules_.magic.data(), kMagicBytes);
    PutLittleEndian(head_.data() + kMagicBytes, stored.size(), 8);
    std::memcpy(head_.data() + kHeaderBytes, stored.data(), stored.size());
  }

  [[nodiscard]] uint64_t bytes() const { return head_.size() + layout_.end(); }

  template <typename Visitor>
  void Visit(const Visitor& visit) const {
    constexpr std::array<std::byte, kAlignment> kZeros{};
    visit(ByteSpan(head_));
    uint64_t at = 0;
    for (const BlockTensor* tensor : layout_.tensors()) {
      const uint64_t begin = AlignUp(at, rules_.alignment);
      visit(ByteSpan(kZeros).first(begin - at));
      if (!tensor->bytes.empty()) visit(tensor->bytes.span());
      at = begin + tensor->bytes.size();
    }
  }

 private:
  FormRules rules_;
  Layout layout_;
  std::vector<std::byte> head_;  // up to where the tensors begin
};

}  // namespace

const BlockSection* TensorBlock::Find(const std::string& role) const {
  for (const BlockSection& section : sections) {
    if (section.role == role) return &section;
  }
  return nullptr;
}

uint64_t PackedBytesMax(DType dtype, const std::vector<int64_t>& shape) {
  constexpr uint64_t kHeader = 64;
  const uint64_t plain = TensorBytes(dtype, shape).value_or(0);
  return plain + plain / DTypeBytes(dtype) / 8 + kHeader;
}

Blob EncodeTensorBlock(const TensorBlock& block, BlockForm form) {
  const Pieces pieces(block, form);
  const std::shared_ptr<std::byte> buffer = AlignedBuffer(pieces.bytes());
  std::byte* out = buffer.get();
  pieces.Visit([&out](ByteSpan piece) {
    std::memcpy(out, piece.data(), piece.size());
    out += piece.size();
  });
  return Blob::Share({buffer.get(), pieces.bytes()}, buffer);
}

std::string TensorBlockSha256(const TensorBlock& block) {
  Sha256 sha;
  Pieces(block, BlockForm::kCanonical).Visit([&sha](ByteSpan piece) { sha.Update(piece); });
  return sha.FinishHex();
}

// ---- decoding ----

namespace {

class BlockReader {
 public:
  BlockReader(const Blob& bytes, uint64_t data_start, size_t alignment)
      : bytes_(bytes), data_start_(data_start), alignment_(alignment), at_(data_start) {}

  Status Read(proto::TensorManifest::Reader in, TensorBlock& block) {
    if (in.getVersion() != kManifestVersion) {
      return FailedPrecondition(Str("[tensor-block] got version ", in.getVersion(),
                                    ", this program reads version ", kManifestVersion));
    }
    block.codec = fields_.Key(in.getCodec(), "codec");
    const auto sections = in.getSections();
    if (!fields_.Count(sections.size(), limits::kSectionsMax, "sections")) return fields_.status();
    for (const auto section : sections) {
      ReadSection(section, block.sections.emplace_back());
      if (block.Find(block.sections.back().role) != &block.sections.back()) {
        fields_.Fail("section", Str("got \"", block.sections.back().role, "\" twice"));
      }
      if (!fields_.ok()) return fields_.status();
    }
    if (at_ != bytes_.size()) {
      fields_.Fail("size", Str("got ", bytes_.size(), " bytes, the manifest says ", at_));
    }
    return fields_.status();
  }

 private:
  void ReadSection(proto::Section::Reader in, BlockSection& section) {
    section.role = fields_.Key(in.getRole(), "section role");
    section.spec = wire::ReadSpec(fields_, in.getSpec());
    section.delta = in.getDelta();
    if (in.hasCodec()) section.codec = fields_.Key(in.getCodec(), "section codec");
    const auto sites = in.getSites();
    if (!fields_.Count(sites.size(), limits::kSitesMax, "sites")) return;
    section.sites.reserve(sites.size());
    std::set<std::string> paths;
    for (const auto from : sites) {
      BlockSite& site = section.sites.emplace_back();
      site.site = wire::ReadSite(fields_, from.getSite());
      if (!paths.insert(site.site.path).second) {
        fields_.Fail("sites", Str("got site \"", site.site.path, "\" twice"));
      }
      if (fields_.ok()) {
        ReadTensors(from.getTensors(), limits::kTensorsPerSiteMax, site.site.path, section,
                    site.tensors);
      }
      if (!fields_.ok()) return;
    }
    ReadTensors(in.getDense(), limits::kDenseTensorsMax, "dense", section, section.dense);
  }

  void ReadTensors(capnp::List<proto::Tensor>::Reader in, uint64_t count_max,
                   const std::string& owner, const BlockSection& section,
                   std::vector<BlockTensor>& tensors) {
    if (!fields_.Count(in.size(), count_max, "tensors")) return;
    tensors.reserve(in.size());
    std::set<std::string> names;
    for (const auto from : in) {
      BlockTensor& tensor = tensors.emplace_back();
      tensor.name = fields_.Key(from.getName(), "tensor name");
      if (!names.insert(tensor.name).second) {
        fields_.Fail("tensors", Str(owner, ": got tensor \"", tensor.name, "\" twice"));
      }
      if (fields_.ok()) ReadTensor(from, owner, section, tensor);
      if (!fields_.ok()) return;
    }
  }

  void ReadTensor(proto::Tensor::Reader in, const std::string& owner, const BlockSection& section,
                  BlockTensor& tensor) {
    const auto fail = [&](const std::string& what) {
      fields_.Fail("tensor", Str(owner, " ", tensor.name, ": ", what));
    };
    const std::string word = fields_.Name(in.getDtype(), "dtype");
    const std::optional<DType> dtype = DTypeFromName(word);
    if (!dtype) return fail(Str("unknown dtype \"", word, "\""));
    tensor.dtype = *dtype;
    const auto shape = in.getShape();
    if (!fields_.Count(shape.size(), limits::kTensorDimensionsMax, "shape")) return;
    for (const int64_t side : shape) tensor.shape.push_back(side);
    const std::optional<uint64_t> bytes = TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes) return fail("its shape is negative or larger than any payload");
    if (in.getSharedWith() != 0) {
      const std::string wrong = TakeShared(in.getSharedWith() - 1, section, tensor);
      return wrong.empty() ? void() : fail(wrong);
    }
    plain_bytes_ += *bytes;
    if (plain_bytes_ > limits::kPayloadBytesMax) {
      return fail(Str("with it the block is ", plain_bytes_, " bytes unpacked, at most ",
                      limits::kPayloadBytesMax));
    }
    tensor.packing = fields_.Name(in.getPacking(), "packing");
    uint64_t stored = *bytes;
    if (!tensor.packing.empty()) {
      stored = in.getPackedBytes();
      if (stored > PackedBytesMax(tensor.dtype, tensor.shape)) {
        return fail(Str("packed to ", stored, " bytes, more than it can need"));
      }
    }
    const std::string wrong = TakeBytes(in.getOffset(), stored, tensor);
    if (!wrong.empty()) fail(wrong);
  }

  // Both return what is wrong, or nothing.
  static std::string TakeShared(size_t site, const BlockSection& section, BlockTensor& tensor) {
    // The site being read is the last one; a dense tensor has none of its own.
    if (site + 1 >= section.sites.size()) return Str("shared with site ", site, ", no earlier one");
    for (const BlockTensor& held : section.sites[site].tensors) {
      if (held.name != tensor.name) continue;
      if (held.shared_with || held.dtype != tensor.dtype || held.shape != tensor.shape) break;
      tensor.bytes = held.bytes;
      tensor.packing = held.packing;
      tensor.shared_with = site;
      return "";
    }
    return Str("shared with site ", section.sites[site].site.path, ", which holds no such tensor");
  }

  std::string TakeBytes(uint64_t offset, uint64_t stored, BlockTensor& tensor) {
    const uint64_t start = AlignUp(at_, alignment_);
    if (offset != start - data_start_) {
      return Str("got offset ", offset, ", wanted ", start - data_start_,
                 ": tensors lie in order, aligned to ", alignment_, " bytes");
    }
    if (start > bytes_.size() || stored > bytes_.size() - start) {
      return Str("its ", stored, " bytes end behind the block's ", bytes_.size());
    }
    for (uint64_t i = at_; i < start; ++i) {
      if (bytes_.data()[i] != std::byte{0}) return "the padding before it is not zero";
    }
    tensor.bytes = bytes_.Slice(start, stored);
    at_ = start + stored;
    return "";
  }

  const Blob& bytes_;
  const uint64_t data_start_;
  const size_t alignment_;
  uint64_t at_;
  uint64_t plain_bytes_ = 0;  // of all tensors so far, unpacked: what decoding takes memory for
  FieldReader fields_{"tensor-block"};
};

// The manifest's bytes as Cap'n Proto wants them.
Result<Blob> Decompressed(const Blob& stored, uint64_t bytes_max) {
  const unsigned long long size = ZSTD_getFrameContentSize(stored.data(), stored.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size > bytes_max) {
    return InvalidArgument(
        Str("[tensor-block] a compressed manifest of unknown size, or of more than ", bytes_max,
            " bytes"));
  }
  const std::shared_ptr<std::byte> buffer = AlignedBuffer(size);
  const size_t got = ZSTD_decompress(buffer.get(), size, stored.data(), stored.size());
  if (ZSTD_isError(got) != 0 || got != size) {
    return DataLoss(Str("[tensor-block] the manifest cannot be decompressed: ",
                        ZSTD_isError(got) != 0 ? ZSTD_getErrorName(got) : "too short"));
  }
  return Blob::Share({buffer.get(), static_cast<size_t>(size)}, buffer);
}

}  // namespace

Result<TensorBlock> DecodeTensorBlock(const Blob& bytes, uint64_t manifest_bytes_max) {
  const std::string_view magic = bytes.view().substr(0, kMagicBytes);
  const bool compact = magic == kCompactRules.magic;
  if (bytes.size() < kHeaderBytes || (!compact && magic != kCanonicalRules.magic)) {
    return InvalidArgument(Str("[tensor-block] got ", bytes.size(), " bytes without the mark ",
                               kCanonicalRules.magic, " or ", kCompactRules.magic,
                               " at their start: no tensor block"));
  }
  if (bytes.size() > limits::kPayloadBytesMax) {
    return InvalidArgument(Str("[tensor-block] got ", bytes.size(), " bytes, wanted at most ",
                               limits::kPayloadBytesMax));
  }
  const uint64_t manifest_bytes = GetLittleEndian(bytes.data() + kMagicBytes, 8);
  if (manifest_bytes > manifest_bytes_max || manifest_bytes > bytes.size() - kHeaderBytes) {
    return InvalidArgument(Str("[tensor-block] a manifest of ", manifest_bytes,
                               " bytes in a block of ", bytes.size(), " (at most ",
                               manifest_bytes_max, ")"));
  }
  const size_t alignment = (compact ? kCompactRules : kCanonicalRules).alignment;
  const uint64_t manifest_end = kHeaderBytes + manifest_bytes;
  const uint64_t data_start = AlignUp(manifest_end, alignment);
  if (data_start > bytes.size()) {
    return DataLoss(
        Str("[tensor-block] cut off at byte ", bytes.size(), ", wanted at least ", data_start));
  }
  for (uint64_t i = manifest_end; i < data_start; ++i) {
    if (bytes.data()[i] != std::byte{0}) {
      return InvalidArgument("[tensor-block] the padding behind the manifest is not zero");
    }
  }
  Blob manifest = bytes.Slice(kHeaderBytes, manifest_bytes);
  if (compact) {
    WEFT_TRY_ASSIGN(manifest, Decompressed(manifest, manifest_bytes_max));
  }
  TensorBlock block;
  BlockReader reader(bytes, data_start, alignment);
  const wire::DoorLimits limits{.words_max = kVisitsMax * (manifest_bytes_max / 8),
                                .nesting_max = limits::kCapnpNestingMax};
  WEFT_TRY(wire::ReadAtDoor(manifest.span(), limits, [&](capnp::MessageReader& message) {
    return reader.Read(message.getRoot<proto::TensorManifest>(), block);
  }));
  return block;
}

}  // namespace weft
