#include "client/training_state.h"

#include <charconv>
#include <map>

#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/codec/precision.h"
#include "common/crypto/digest.h"
#include "common/formats/safetensors.h"
#include "common/formats/safetensors_writer.h"
#include "common/tensor/dtype_map.h"

// The bytes are a safetensors file: tensors "exp_avg" and "exp_avg_sq" where kept, "rule.…" of the
// step rule, "kept" (a bundle's bytes) of what is not shipped, "residual" and "residual-before" of
// what updates left out; numbers in its metadata.

namespace weft {
namespace {

constexpr std::string_view kRulePrefix = "rule.";
// The bytes of a bundle.
constexpr std::string_view kKept = "kept";
constexpr std::string_view kResidual = "residual";
constexpr std::string_view kResidualBefore = "residual-before";
constexpr std::string_view kWhere = "[train] kept state";

class Numbers {
 public:
  explicit Numbers(const SafetensorsMetadata& metadata) {
    for (const auto& [name, value] : metadata) values_[name] = value;
  }

  Result<uint64_t> Get(const std::string& name) const {
    const auto found = values_.find(name);
    uint64_t number = 0;
    if (found != values_.end()) {
      const char* end = found->second.data() + found->second.size();
      const auto [stop, error] = std::from_chars(found->second.data(), end, number);
      if (error == std::errc() && stop == end) return number;
    }
    return InvalidArgument(Str(kWhere, ": no number \"", name, "\""));
  }

  std::string Text(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? "" : found->second;
  }

 private:
  std::map<std::string, std::string> values_;
};

Result<at::Tensor> ReadTensor(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor* stored = file.Find(name);
  if (stored == nullptr || stored->dtype != DType::kFloat32) {
    return InvalidArgument(Str(kWhere, ": no float32 tensor ", name));
  }
  at::Tensor value = TensorOver(stored->bytes, stored->dtype, stored->shape);
  if (!at::isfinite(value).all().item<bool>()) {
    return InvalidArgument(Str(kWhere, ": ", name, " holds NaN or infinite numbers"));
  }
  return value;
}

Result<std::optional<AdapterState>> ReadAdapter(const SafetensorsFile& file,
                                                std::string_view name) {
  const StoredTensor* stored = file.Find(std::string(name));
  if (stored == nullptr) return std::optional<AdapterState>();
  WEFT_TRY_ASSIGN(AdapterBundle bundle, DecodeBundle(stored->bytes, at::kCPU));
  return std::move(bundle.adapter);
}

}  // namespace

std::string LayoutName(const AdapterState& state) {
  std::string text = state.spec.method;
  for (const SiteState& site : state.sites) {
    for (const NamedTensor& tensor : site.tensors) {
      text += Str("\n", site.site.path, " ", tensor.name, " ", tensor.value.sizes());
    }
  }
  for (const NamedTensor& tensor : state.dense) {
    text += Str("\n", tensor.name, " ", tensor.value.sizes());
  }
  return Sha256Hex(AsBytes(text));
}

Result<Blob> EncodeTrainingState(const TrainingState& state) {
  SafetensorsMetadata metadata = {{"layout", state.layout},
                                  {"pass", std::to_string(state.position.pass)},
                                  {"row", std::to_string(state.position.row)},
                                  {"round", std::to_string(state.round.number)}};
  std::vector<TensorToWrite> tensors;
  if (state.moments) {
    metadata.emplace_back("step", std::to_string(state.moments->step));
    for (const auto& [name, value] : {std::pair("exp_avg", state.moments->exp_avg),
                                      std::pair("exp_avg_sq", state.moments->exp_avg_sq)}) {
      tensors.push_back({name, DType::kFloat32, value.sizes().vec(), BytesOf(value)});
    }
  }
  for (const auto& [name, value] : state.step_rule) {
    tensors.push_back(
        {Str(kRulePrefix, name), DType::kFloat32, value.sizes().vec(), BytesOf(value)});
  }
  std::vector<Blob> adapters;  // hold the bytes until they are copied
  for (const auto& [name, adapter] :
       {std::pair(kKept, &state.kept), std::pair(kResidual, &state.residual),
        std::pair(kResidualBefore, &state.residual_before)}) {
    if (!*adapter) continue;
    AdapterBundle bundle;
    bundle.adapter = *adapter;
    WEFT_TRY_ASSIGN(const Blob bytes, EncodeBundle(bundle, Float32Codec()));
    adapters.push_back(bytes);
    tensors.push_back({std::string(name),
                       DType::kUInt8,
                       {static_cast<int64_t>(bytes.size())},
                       adapters.back().span()});
  }
  return EncodeSafetensors(tensors, metadata);
}

Result<TrainingState> DecodeTrainingState(const Blob& bytes) {
  WEFT_TRY_ASSIGN(const SafetensorsFile file, SafetensorsFile::Parse(bytes, "kept state"));
  const Numbers numbers(file.metadata());
  TrainingState state;
  state.layout = numbers.Text("layout");
  WEFT_TRY_ASSIGN(state.position.pass, numbers.Get("pass"));
  WEFT_TRY_ASSIGN(state.position.row, numbers.Get("row"));
  for (const StoredTensor& stored : file.tensors()) {
    if (!stored.name.starts_with(kRulePrefix)) continue;
    WEFT_TRY_ASSIGN(const at::Tensor value, ReadTensor(file, stored.name));
    state.step_rule.push_back({stored.name.substr(kRulePrefix.size()), value});
  }
  if (!numbers.Text("round").empty()) {
    WEFT_TRY_ASSIGN(const uint64_t round, numbers.Get("round"));
    state.round.number = static_cast<uint32_t>(round);
  }
  WEFT_TRY_ASSIGN(state.kept, ReadAdapter(file, kKept));
  WEFT_TRY_ASSIGN(state.residual, ReadAdapter(file, kResidual));
  WEFT_TRY_ASSIGN(state.residual_before, ReadAdapter(file, kResidualBefore));
  if (file.Find("exp_avg") == nullptr) return state;
  AdamW::Moments moments;
  WEFT_TRY_ASSIGN(const uint64_t step, numbers.Get("step"));
  moments.step = static_cast<int64_t>(step);
  WEFT_TRY_ASSIGN(moments.exp_avg, ReadTensor(file, "exp_avg"));
  WEFT_TRY_ASSIGN(moments.exp_avg_sq, ReadTensor(file, "exp_avg_sq"));
  state.moments = std::move(moments);
  return state;
}

}  // namespace weft
