#include "common/wire/tensor_block.h"

#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <set>

#include <capnp/serialize.h>
#include <protocols/tensors.capnp.h>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/crypto/digest.h"
#include "common/wire/spec_codec.h"

namespace weft {
namespace {

using wire::AsCapnp;
using wire::FieldReader;
using wire::ListSize;

constexpr std::string_view kMagic = "WEFTTB01";
constexpr size_t kHeaderBytes = 16;  // magic and the manifest's length
constexpr size_t kAlignment = 64;
constexpr uint16_t kManifestVersion = 1;
constexpr uint64_t kManifestWordsMax = 4 * (limits::kManifestBytesMax / 8);

uint64_t AlignUp(uint64_t value) { return (value + kAlignment - 1) / kAlignment * kAlignment; }

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
  uint64_t Place(const BlockTensor& tensor) {
    const std::optional<uint64_t> bytes = TensorBytes(tensor.dtype, tensor.shape);
    WEFT_CHECK(bytes && *bytes == tensor.bytes.size(), "tensor ", tensor.name, ": ",
               tensor.bytes.size(), " bytes do not match its shape");
    const uint64_t offset = AlignUp(end_);
    end_ = offset + *bytes;
    tensors_.push_back(&tensor);
    return offset;
  }
  [[nodiscard]] uint64_t end() const { return end_; }
  [[nodiscard]] const std::vector<const BlockTensor*>& tensors() const { return tensors_; }

 private:
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

// A block's bytes, one piece after the other.
class Pieces {
 public:
  explicit Pieces(const TensorBlock& block) {
    const kj::Array<capnp::word> manifest = CanonicalManifest(block, layout_);
    const size_t segment_bytes = manifest.size() * sizeof(capnp::word);
    const size_t manifest_bytes = segment_bytes + sizeof(uint64_t);  // with the segment table
    WEFT_CHECK(manifest_bytes <= limits::kManifestBytesMax, "a manifest of ", manifest_bytes,
               " bytes");
    head_.resize(AlignUp(kHeaderBytes + manifest_bytes));
    std::memcpy(head_.data(), kMagic.data(), kMagic.size());
    PutLittleEndian(head_.data() + 8, manifest_bytes, 8);
    PutLittleEndian(head_.data() + 16, 0, 4);  // segment table: one segment, of so many words
    PutLittleEndian(head_.data() + 20, manifest.size(), 4);
    std::memcpy(head_.data() + 24, manifest.begin(), segment_bytes);
  }

  [[nodiscard]] uint64_t bytes() const { return head_.size() + layout_.end(); }

  template <typename Visitor>
  void Visit(const Visitor& visit) const {
    constexpr std::array<std::byte, kAlignment> kZeros{};
    visit(ByteSpan(head_));
    uint64_t at = 0;
    for (const BlockTensor* tensor : layout_.tensors()) {
      visit(ByteSpan(kZeros).first(AlignUp(at) - at));
      if (!tensor->bytes.empty()) visit(tensor->bytes.span());
      at = AlignUp(at) + tensor->bytes.size();
    }
  }

 private:
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

Blob EncodeTensorBlock(const TensorBlock& block) {
  const Pieces pieces(block);
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
  Pieces(block).Visit([&sha](ByteSpan piece) { sha.Update(piece); });
  return sha.FinishHex();
}

// ---- decoding ----

namespace {

class BlockReader {
 public:
  BlockReader(const Blob& bytes, uint64_t data_start)
      : bytes_(bytes), data_start_(data_start), at_(data_start) {}

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
        ReadTensors(from.getTensors(), limits::kTensorsPerSiteMax, site.site.path, site.tensors);
      }
      if (!fields_.ok()) return;
    }
    ReadTensors(in.getDense(), limits::kDenseTensorsMax, "dense", section.dense);
  }

  void ReadTensors(capnp::List<proto::Tensor>::Reader in, uint64_t count_max,
                   const std::string& owner, std::vector<BlockTensor>& tensors) {
    if (!fields_.Count(in.size(), count_max, "tensors")) return;
    tensors.reserve(in.size());
    std::set<std::string> names;
    for (const auto from : in) {
      BlockTensor& tensor = tensors.emplace_back();
      tensor.name = fields_.Key(from.getName(), "tensor name");
      if (!names.insert(tensor.name).second) {
        fields_.Fail("tensors", Str(owner, ": got tensor \"", tensor.name, "\" twice"));
      }
      if (fields_.ok()) ReadTensor(from, owner, tensor);
      if (!fields_.ok()) return;
    }
  }

  void ReadTensor(proto::Tensor::Reader in, const std::string& owner, BlockTensor& tensor) {
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
    const uint64_t start = AlignUp(at_);
    if (in.getOffset() != start - data_start_) {
      return fail(Str("got offset ", in.getOffset(), ", wanted ", start - data_start_,
                      ": tensors lie in order, aligned to 64 bytes"));
    }
    if (start > bytes_.size() || *bytes > bytes_.size() - start) {
      return fail(Str("its ", *bytes, " bytes end behind the block's ", bytes_.size()));
    }
    for (uint64_t i = at_; i < start; ++i) {
      if (bytes_.data()[i] != std::byte{0}) return fail("the padding before it is not zero");
    }
    tensor.bytes = bytes_.Slice(start, *bytes);
    at_ = start + *bytes;
  }

  const Blob& bytes_;
  const uint64_t data_start_;
  uint64_t at_;
  FieldReader fields_{"tensor-block"};
};

}  // namespace

Result<TensorBlock> DecodeTensorBlock(const Blob& bytes) {
  if (bytes.size() < kHeaderBytes || bytes.view().substr(0, kMagic.size()) != kMagic) {
    return InvalidArgument(Str("[tensor-block] got ", bytes.size(), " bytes without the mark ",
                               kMagic, " at their start: no tensor block"));
  }
  if (bytes.size() > limits::kPayloadBytesMax) {
    return InvalidArgument(Str("[tensor-block] got ", bytes.size(), " bytes, wanted at most ",
                               limits::kPayloadBytesMax));
  }
  const uint64_t manifest_bytes = GetLittleEndian(bytes.data() + 8, 8);
  if (manifest_bytes > limits::kManifestBytesMax || manifest_bytes > bytes.size() - kHeaderBytes) {
    return InvalidArgument(Str("[tensor-block] a manifest of ", manifest_bytes,
                               " bytes in a block of ", bytes.size(), " (at most ",
                               limits::kManifestBytesMax, ")"));
  }
  const uint64_t manifest_end = kHeaderBytes + manifest_bytes;
  const uint64_t data_start = AlignUp(manifest_end);
  if (data_start > bytes.size()) {
    return DataLoss(
        Str("[tensor-block] cut off at byte ", bytes.size(), ", wanted at least ", data_start));
  }
  for (uint64_t i = manifest_end; i < data_start; ++i) {
    if (bytes.data()[i] != std::byte{0}) {
      return InvalidArgument("[tensor-block] the padding behind the manifest is not zero");
    }
  }
  TensorBlock block;
  BlockReader reader(bytes, data_start);
  const wire::DoorLimits limits{.words_max = kManifestWordsMax,
                                .nesting_max = limits::kCapnpNestingMax};
  WEFT_TRY(wire::ReadAtDoor(bytes.Slice(kHeaderBytes, manifest_bytes).span(), limits,
                            [&](capnp::MessageReader& message) {
                              return reader.Read(message.getRoot<proto::TensorManifest>(), block);
                            }));
  return block;
}

}  // namespace weft
