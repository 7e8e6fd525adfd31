#include "common/formats/safetensors_writer.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include <nlohmann/json.hpp>

#include "common/base/limits.h"
#include "common/formats/file_io.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

// The parts of a file in order: the header (length and JSON, padded), then each tensor's bytes.
struct Layout {
  std::string header;
  std::vector<ByteSpan> parts;  // without the header
};

Status CheckText(std::string_view text, std::string_view what) {
  if (IsValidUtf8(text)) return OkStatus();
  return InvalidArgument(Str("[safetensors] ", what, " to write is not UTF-8"));
}

Result<Layout> MakeLayout(std::span<const TensorToWrite> tensors,
                          const SafetensorsMetadata& metadata) {
  std::vector<const TensorToWrite*> order;
  for (const TensorToWrite& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
    const size_t a_bytes = DTypeBytes(a->dtype);
    const size_t b_bytes = DTypeBytes(b->dtype);
    return std::tie(b_bytes, a->name) < std::tie(a_bytes, b->name);
  });

  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [key, value] : metadata) {
    WEFT_TRY(CheckText(key, "a metadata key"));
    WEFT_TRY(CheckText(value, Str("metadata ", key)));
    json["__metadata__"][key] = value;
  }
  Layout layout;
  uint64_t at = 0;
  std::vector<std::string> names;
  for (const TensorToWrite* tensor : order) {
    WEFT_TRY(CheckText(tensor->name, "a tensor's name"));
    if (tensor->name.empty() || tensor->name == "__metadata__" ||
        tensor->name.size() > limits::kNameBytesMax) {
      return InvalidArgument(Str("[safetensors] \"", tensor->name.substr(0, 64),
                                 "\" cannot be a tensor's name, wanted 1 to ",
                                 limits::kNameBytesMax, " bytes and not __metadata__"));
    }
    const auto bytes = TensorBytes(tensor->dtype, tensor->shape);
    WEFT_CHECK(bytes && *bytes == tensor->bytes.size(), tensor->name, ": ",
               DTypeName(tensor->dtype), " ", ShapeText(tensor->shape), " with ",
               tensor->bytes.size(), " bytes");
    json.push_back({tensor->name,
                    {{"dtype", DTypeName(tensor->dtype)},
                     {"shape", tensor->shape},
                     {"data_offsets", {at, at + *bytes}}}});
    names.push_back(tensor->name);
    at += *bytes;
    layout.parts.push_back(tensor->bytes);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    return InvalidArgument(Str("[safetensors] tensor ", *twice, " to write is named twice"));
  }
  std::string text = json.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  for (unsigned i = 0; i < 8; ++i) {
    layout.header.push_back(static_cast<char>(static_cast<unsigned char>(length >> (8 * i))));
  }
  layout.header += text;
  return layout;
}

}  // namespace

Status WriteSafetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                        const SafetensorsMetadata& metadata) {
  WEFT_TRY_ASSIGN(const Layout layout, MakeLayout(tensors, metadata));
  std::vector<ByteSpan> parts = {AsBytes(layout.header)};
  parts.insert(parts.end(), layout.parts.begin(), layout.parts.end());
  return WriteFileAtomically(path, parts);
}

Result<Blob> EncodeSafetensors(std::span<const TensorToWrite> tensors,
                               const SafetensorsMetadata& metadata) {
  WEFT_TRY_ASSIGN(const Layout layout, MakeLayout(tensors, metadata));
  size_t size = layout.header.size();
  for (const ByteSpan part : layout.parts) size += part.size();
  std::vector<std::byte> bytes;
  bytes.reserve(size);
  const ByteSpan header = AsBytes(layout.header);
  bytes.insert(bytes.end(), header.begin(), header.end());
  for (const ByteSpan part : layout.parts) bytes.insert(bytes.end(), part.begin(), part.end());
  return Blob::Adopt(std::move(bytes));
}

}  // namespace weft
