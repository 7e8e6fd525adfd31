#include "common/model/weights.h"

#include <cmath>
#include <optional>
#include <unordered_map>
#include <utility>

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/formats/model_layout.h"
#include "common/formats/safetensors.h"
#include "common/model/projection.h"

namespace weft {
namespace {

// Matrices up to this many elements are laid side by side even when that copies mapped weights: one
// product instead of three is worth it where products are small, and the copy is small too.
constexpr int64_t kFuseCopyElementsMax = int64_t{1} << 20;

at::ScalarType TorchType(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return at::kBFloat16;
    case DType::kFloat16:
      return at::kHalf;
    default:
      return at::kFloat;  // CheckTensors let nothing else through
  }
}

bool IsAligned(const StoredTensor& stored) {
  return reinterpret_cast<uintptr_t>(stored.bytes.data()) % DTypeBytes(stored.dtype) == 0;
}

// A tensor on the file's own pages; it keeps the mapping alive and must never be written to.
at::Tensor MapTensor(const StoredTensor& stored, at::IntArrayRef shape) {
  const at::TensorOptions options = at::TensorOptions().dtype(TorchType(stored.dtype));
  if (stored.bytes.empty()) return at::empty(shape, options);
  if (!IsAligned(stored)) {
    at::Tensor copy = at::empty(shape, options);
    std::memcpy(copy.data_ptr(), stored.bytes.data(), stored.bytes.size());
    return copy;
  }
  void* const data = const_cast<std::byte*>(stored.bytes.data());
  return at::from_blob(
      data, shape, [owner = stored.bytes.owner()](void*) {}, options);
}

at::Tensor RandomTensor(const ModelConfig& config, const ExpectedTensor& expected, uint64_t seed) {
  const std::string_view name = expected.name;
  const auto ends_with = [&](std::string_view end) {
    return name.size() >= end.size() && name.substr(name.size() - end.size()) == end;
  };
  at::Tensor value = at::zeros(expected.shape, at::kFloat);
  if (ends_with(".bias")) return value;
  if (expected.shape.size() == 1) return value.fill_(1);
  double deviation = config.initializer_range;
  // GPT-2 (Radford et al. 2019): projections onto the residual stream start smaller with depth.
  if (ends_with("c_proj.weight")) deviation /= std::sqrt(2.0 * double(config.num_layers));
  RandomStream stream = RandomStream::Derive(seed, {"init", name});
  float* const data = value.data_ptr<float>();
  for (int64_t i = 0; i < value.numel(); ++i)
    data[i] = static_cast<float>(deviation * stream.Normal());
  return value;
}

class Loader {
 public:
  Loader(const ModelConfig& config, const LoadOptions& options,
         std::optional<SafetensorsFolder> folder)
      : config_(config),
        options_(options),
        matrix_type_(!options.token_by_token && WidensProducts(options.dtype, options.device)
                         ? at::kFloat
                         : options.dtype),
        folder_(std::move(folder)) {
    for (const ExpectedTensor& expected : ExpectedTensors(config)) {
      shapes_.emplace(expected.name, expected.shape);
    }
    for (const ExpectedTensor& expected :
         HeadTensors(config, static_cast<int64_t>(config.labels.size()))) {
      shapes_.emplace(expected.name, expected.shape);
    }
    const std::vector<LinearSite> sites = LinearSites(config);
    for (size_t i = 0; i < sites.size(); ++i) site_index_.emplace(sites[i].path, i);
  }

  ModelWeights Load();

 private:
  struct Source {
    const StoredTensor* stored = nullptr;
    at::Tensor value;        // as stored (mapped) or drawn
    bool shareable = false;  // its memory can be computed on as it is
  };

  bool Has(const std::string& name) const { return shapes_.count(name) != 0; }
  Source Open(const std::string& name) const;
  at::Tensor Single(const std::string& name, at::ScalarType type, int64_t* slot);
  NormWeights Norm(const std::string& path);
  ProjectionGroup Group(const std::string& layer, const std::vector<std::string>& modules);
  void AddPieces(const std::vector<Source>& sources, const std::vector<std::string>& names,
                 ProjectionGroup* group);
  void AddBiases(const std::string& layer, const std::vector<std::string>& modules,
                 ProjectionGroup* group);
  LayerWeights Layer(int64_t index);
  LayerWeights EncoderLayer(int64_t index);
  ModelWeights LoadEncoder();
  void AddClassifier(const std::string& name);
  bool HasHead() const;
  int64_t Publish(const std::string& name, const at::Tensor& value);
  at::Tensor Empty(at::IntArrayRef shape, at::ScalarType type) const {
    return at::empty(shape, at::TensorOptions().dtype(type).device(options_.device));
  }

  const ModelConfig& config_;
  const LoadOptions& options_;
  const at::ScalarType matrix_type_;  // of what products are taken with
  const std::string body_{config_.family == ModelFamily::kBert ? "bert."
                                                               : "roberta."};  // encoders'
  std::optional<SafetensorsFolder> folder_;
  std::unordered_map<std::string, std::vector<int64_t>> shapes_;
  std::unordered_map<std::string, size_t> site_index_;
  ModelWeights weights_;
};

Loader::Source Loader::Open(const std::string& name) const {
  const std::vector<int64_t>& shape = shapes_.at(name);
  Source source;
  if (folder_) source.stored = FindWeight(config_, *folder_, name);
  if (source.stored == nullptr) {
    const std::optional<uint64_t> seed = folder_ ? options_.head_seed : options_.init_seed;
    WEFT_CHECK(seed.has_value(), name);
    source.value = RandomTensor(config_, {name, shape}, *seed);
  } else {
    source.value = MapTensor(*source.stored, shape);
    source.shareable = !options_.trainable && options_.device.is_cpu() &&
                       source.value.scalar_type() == options_.dtype && IsAligned(*source.stored);
  }
  return source;
}

// Registers a weight under its name; for a trainable model also a leaf on the same storage, so that
// what the optimiser writes is what the products read.
int64_t Loader::Publish(const std::string& name, const at::Tensor& value) {
  weights_.named.push_back({name, value});
  if (!options_.trainable) return -1;
  at::Tensor leaf = value.detach();
  leaf.requires_grad_(true);
  weights_.trainable.push_back({name, leaf});
  return static_cast<int64_t>(weights_.trainable.size()) - 1;
}

at::Tensor Loader::Single(const std::string& name, at::ScalarType type, int64_t* slot) {
  const Source source = Open(name);
  at::Tensor value = source.value;
  if (!source.shareable || type != options_.dtype) {
    value = Empty(source.value.sizes(), type);
    value.copy_(source.value.to(options_.dtype));
  }
  *slot = Publish(name, value);
  return value;
}

NormWeights Loader::Norm(const std::string& path) {
  NormWeights norm;
  norm.weight_E = Single(path + ".weight", options_.dtype, &norm.weight_slot);
  if (Has(path + ".bias")) norm.bias_E = Single(path + ".bias", options_.dtype, &norm.bias_slot);
  return norm;
}

// Where the matrices follow one another in the file, one tensor spans them all; where they must be
// converted or are small, they are copied side by side; large ones stay separate products.
void Loader::AddPieces(const std::vector<Source>& sources, const std::vector<std::string>& names,
                       ProjectionGroup* group) {
  bool shareable = matrix_type_ == options_.dtype, adjacent = true;
  for (size_t i = 0; i < sources.size(); ++i) {
    shareable = shareable && sources[i].shareable;
    if (i > 0 && adjacent && sources[i].stored != nullptr) {
      const Blob& before = sources[i - 1].stored->bytes;
      adjacent = before.data() + before.size() == sources[i].stored->bytes.data() &&
                 before.owner() == sources[i].stored->bytes.owner();
    }
  }
  const bool copy = !shareable || (!adjacent && group->out * group->in <= kFuseCopyElementsMax);
  if (!copy && !adjacent) {
    for (size_t i = 0; i < sources.size(); ++i) {
      group->pieces.push_back({sources[i].value, group->parts[i].begin});
      group->parts[i].weight_slot = Publish(names[i], sources[i].value);
    }
    return;
  }
  at::Tensor whole_OI;
  if (copy) {
    whole_OI = Empty({group->out, group->in}, matrix_type_);
  } else {
    whole_OI = at::from_blob(
        sources[0].value.data_ptr(), {group->out, group->in},
        [owner = sources[0].stored->bytes.owner()](void*) {}, sources[0].value.options());
  }
  for (size_t i = 0; i < sources.size(); ++i) {
    const at::Tensor rows = whole_OI.narrow(0, group->parts[i].begin, group->parts[i].size);
    if (copy) rows.copy_(sources[i].value.to(options_.dtype));
    group->parts[i].weight_slot = Publish(names[i], rows);
  }
  group->pieces.push_back({whole_OI, 0});
}

void Loader::AddBiases(const std::string& layer, const std::vector<std::string>& modules,
                       ProjectionGroup* group) {
  if (!Has(layer + modules[0] + ".bias")) return;
  group->bias_O = Empty({group->out}, options_.dtype);
  for (size_t i = 0; i < modules.size(); ++i) {
    const std::string name = layer + modules[i] + ".bias";
    const at::Tensor part = group->bias_O.narrow(0, group->parts[i].begin, group->parts[i].size);
    part.copy_(Open(name).value);
    group->parts[i].bias_slot = Publish(name, part);
  }
}

ProjectionGroup Loader::Group(const std::string& layer, const std::vector<std::string>& modules) {
  const bool transposed = config_.family == ModelFamily::kGpt2;
  ProjectionGroup group;
  std::vector<Source> sources;
  std::vector<std::string> names;
  for (const std::string& module : modules) {
    names.push_back(layer + module + ".weight");
    const std::vector<int64_t>& shape = shapes_.at(names.back());
    const int64_t out = shape[transposed ? 1 : 0];
    group.in = shape[transposed ? 0 : 1];
    group.parts.push_back({.site = site_index_.at(layer + module),
                           .begin = group.out,
                           .size = out,
                           .weight_slot = -1,
                           .bias_slot = -1,
                           .stored_transposed = transposed});
    group.out += out;
    if (!transposed) sources.push_back(Open(names.back()));
  }
  if (transposed) {
    WEFT_CHECK(modules.size() == 1);
    const at::Tensor value_IO = Single(names[0], matrix_type_, &group.parts[0].weight_slot);
    group.pieces.push_back({value_IO.t(), 0});
  } else {
    AddPieces(sources, names, &group);
  }
  AddBiases(layer, modules, &group);
  return group;
}

LayerWeights Loader::Layer(int64_t index) {
  LayerWeights layer;
  if (config_.family == ModelFamily::kGpt2) {
    const std::string path = Str("transformer.h.", index, ".");
    layer.norm1 = Norm(path + "ln_1");
    layer.qkv = Group(path, {"attn.c_attn"});
    layer.o = Group(path, {"attn.c_proj"});
    layer.norm2 = Norm(path + "ln_2");
    layer.up = Group(path, {"mlp.c_fc"});
    layer.down = Group(path, {"mlp.c_proj"});
    return layer;
  }
  const std::string path = Str("model.layers.", index, ".");
  layer.norm1 = Norm(path + "input_layernorm");
  layer.qkv = Group(path, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"});
  if (config_.qk_norm) {
    layer.q_norm_D = Single(path + "self_attn.q_norm.weight", options_.dtype, &layer.q_norm_slot);
    layer.k_norm_D = Single(path + "self_attn.k_norm.weight", options_.dtype, &layer.k_norm_slot);
  }
  layer.o = Group(path, {"self_attn.o_proj"});
  layer.norm2 = Norm(path + "post_attention_layernorm");
  layer.up = Group(path, {"mlp.gate_proj", "mlp.up_proj"});
  layer.down = Group(path, {"mlp.down_proj"});
  return layer;
}

LayerWeights Loader::EncoderLayer(int64_t index) {
  const std::string path = Str(body_, "encoder.layer.", index, ".");
  LayerWeights layer;
  layer.qkv = Group(path, {"attention.self.query", "attention.self.key", "attention.self.value"});
  layer.o = Group(path, {"attention.output.dense"});
  layer.norm1 = Norm(path + "attention.output.LayerNorm");
  layer.up = Group(path, {"intermediate.dense"});
  layer.down = Group(path, {"output.dense"});
  layer.norm2 = Norm(path + "output.LayerNorm");
  return layer;
}

// Autograd takes the classifier's gradients, so it gets the leaf, where there is one.
void Loader::AddClassifier(const std::string& name) {
  int64_t slot = -1;
  at::Tensor value = Single(name, options_.dtype, &slot);
  if (slot >= 0) value = weights_.trainable[static_cast<size_t>(slot)].value;
  weights_.classifier.push_back({name, value});
}

bool Loader::HasHead() const {
  if (!folder_ || options_.head_seed) return true;
  return folder_->Find(HeadSites(config_).back().path + ".weight") != nullptr;
}

ModelWeights Loader::LoadEncoder() {
  const std::string embeddings = body_ + "embeddings.";
  weights_.embed_VE =
      Single(embeddings + "word_embeddings.weight", options_.dtype, &weights_.embed_slot);
  weights_.positions_PE =
      Single(embeddings + "position_embeddings.weight", options_.dtype, &weights_.positions_slot);
  weights_.types_KE =
      Single(embeddings + "token_type_embeddings.weight", options_.dtype, &weights_.types_slot);
  weights_.embed_norm = Norm(embeddings + "LayerNorm");
  for (int64_t i = 0; i < config_.num_layers; ++i) weights_.layers.push_back(EncoderLayer(i));
  if (config_.family == ModelFamily::kBert) {
    AddClassifier(body_ + "pooler.dense.weight");
    AddClassifier(body_ + "pooler.dense.bias");
  }
  if (HasHead()) {
    for (const ExpectedTensor& tensor :
         HeadTensors(config_, static_cast<int64_t>(config_.labels.size()))) {
      AddClassifier(tensor.name);
    }
  }
  return std::move(weights_);
}

ModelWeights Loader::Load() {
  if (config_.is_encoder()) return LoadEncoder();
  const bool gpt2 = config_.family == ModelFamily::kGpt2;
  const std::string embedding = gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight";
  weights_.embed_VE = Single(embedding, options_.dtype, &weights_.embed_slot);
  if (gpt2) {
    weights_.positions_PE =
        Single("transformer.wpe.weight", options_.dtype, &weights_.positions_slot);
  }
  for (int64_t i = 0; i < config_.num_layers; ++i) weights_.layers.push_back(Layer(i));
  weights_.final_norm = Norm(gpt2 ? "transformer.ln_f" : "model.norm");
  if (config_.tie_word_embeddings) {
    weights_.head_VE = weights_.embed_VE.to(matrix_type_);
    weights_.head_slot = weights_.embed_slot;
    if (matrix_type_ != options_.dtype)
      weights_.named.push_back({"lm_head.weight", weights_.head_VE});
  } else {
    weights_.head_VE = Single("lm_head.weight", matrix_type_, &weights_.head_slot);
  }
  return std::move(weights_);
}

}  // namespace

Result<ModelWeights> LoadWeights(const std::filesystem::path& folder, const ModelConfig& config,
                                 const LoadOptions& options) {
  const at::NoGradGuard no_grad;
  Result<SafetensorsFolder> opened = SafetensorsFolder::Open(folder);
  std::optional<SafetensorsFolder> files;
  if (opened.ok()) {
    files = std::move(opened).value();
    WEFT_TRY(CheckTensors(config, *files, folder.string()));
  } else if (opened.status().code() != Code::kNotFound || !options.init_seed ||
             FindWeightFiles(folder).ok()) {
    return opened.status();
  }
  return Loader(config, options, std::move(files)).Load();
}

}  // namespace weft
