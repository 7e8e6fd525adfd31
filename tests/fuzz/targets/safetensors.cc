// A weights file: what parses must be written to a file that parses to the same tensors.

#include "common/formats/safetensors.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/formats/safetensors_writer.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const Blob bytes = Blob::Copy(input);
  const Result<SafetensorsFile> file = SafetensorsFile::Parse(bytes, "fuzz.safetensors");
  if (!file.ok()) return;
  std::vector<TensorToWrite> tensors;
  for (const StoredTensor& tensor : file->tensors()) {
    WEFT_CHECK(file->Find(tensor.name) == &tensor, tensor.name);
    WEFT_CHECK(TensorBytes(tensor.dtype, tensor.shape) == tensor.bytes.size(), tensor.name);
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.bytes.span()});
  }
  const Result<Blob> written = EncodeSafetensors(tensors, file->metadata());
  WEFT_CHECK(written.ok(), written.status());
  const Result<SafetensorsFile> again = SafetensorsFile::Parse(*written, "again.safetensors");
  WEFT_CHECK(again.ok(), again.status());
  WEFT_CHECK(again->metadata() == file->metadata());
  WEFT_CHECK(again->tensors().size() == file->tensors().size());
  for (const StoredTensor& tensor : file->tensors()) {
    const StoredTensor* found = again->Find(tensor.name);
    WEFT_CHECK(found != nullptr && found->dtype == tensor.dtype && found->shape == tensor.shape &&
                   found->bytes.view() == tensor.bytes.view(),
               tensor.name);
  }
}

Seeds MakeSeeds() {
  const std::string data(64, 'x');
  const auto part = [&](size_t bytes) { return AsBytes(std::string_view(data).substr(0, bytes)); };
  const std::vector<TensorToWrite> tensors = {{"w", DType::kFloat32, {2, 3}, part(24)},
                                              {"b", DType::kBFloat16, {5}, part(10)},
                                              {"none", DType::kInt64, {0, 7}, part(0)},
                                              {"one", DType::kBool, {}, part(1)}};
  Seeds seeds;
  for (size_t count = 0; count <= tensors.size(); ++count) {
    seeds.emplace_back(
        EncodeSafetensors(std::span(tensors).first(count), {{"format", "pt"}})->view());
  }
  return seeds;
}

}  // namespace

Target SafetensorsFiles() {
  return {"safetensors",
          Run,
          MakeSeeds,
          {"\"dtype\"", "\"shape\"", "\"data_offsets\"", "\"F16\"", "\"__metadata__\"", "[0,8]",
           "18446744073709551615"}};
}

}  // namespace weft::fuzz
