#include "common/model/encoder.h"

#include <utility>

#include "common/base/check.h"
#include "common/formats/model_layout.h"

namespace weft {

Encoder::Encoder(ModelConfig config, ModelWeights weights, at::Device device, at::ScalarType dtype)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      sites_(LinearSites(config_)),
      device_(device),
      dtype_(dtype) {}

bool Encoder::has_head() const {
  const std::string output = OutputHeadSite(config_).path + ".weight";
  for (const NamedTensor& tensor : weights_.classifier) {
    if (tensor.name == output) return true;
  }
  return false;
}

std::unique_ptr<Model::Cache> Encoder::NewCache() const {
  WEFT_CHECK(false, config_.architecture, " generates nothing");
}

at::Tensor Encoder::Step(const at::Tensor&, Cache&, const AdapterBinding&) const {
  WEFT_CHECK(false, config_.architecture, " generates nothing");
}

PassContext Encoder::MakePass(const PackedBatch& batch) const {
  WEFT_CHECK(batch.row_starts.size() >= 2 && batch.row_starts.front() == 0 &&
                 batch.row_starts.back() == batch.ids_N.size(0),
             "a packed batch has rows that cover its tokens");
  PassContext pass;
  pass.config = &config_;
  pass.heads = {config_.num_heads, config_.num_kv_heads, config_.head_dim};
  pass.positions_N = batch.positions_N.to(device_) + config_.position_offset;
  pass.rows = MakeRowIndex(batch.row_starts, device_);
  return pass;
}

at::Tensor Encoder::Embed(const PackedBatch& batch, const PassContext& pass) const {
  at::Tensor sum_NE = weights_.embed_VE.index_select(0, batch.ids_N.to(device_));
  sum_NE.add_(weights_.positions_PE.index_select(0, pass.positions_N));
  if (batch.types_N.defined() && config_.token_types > 1) {  // some tell texts apart, the model not
    return sum_NE.add_(weights_.types_KE.index_select(0, batch.types_N.to(device_)));
  }
  return sum_NE.add_(weights_.types_KE.select(0, 0));
}

at::Tensor Encoder::HiddenStates(const PackedBatch& batch, const AdapterBinding& adapters) const {
  const at::NoGradGuard no_grad;
  const BoundAdapters bound =
      BindAdapters({weights_, sites_, dtype_, device_}, adapters, {}, false);
  const PassContext pass = MakePass(batch);
  at::Tensor stats_NS;
  at::Tensor h_NE =
      NormForward(NormOf(weights_.embed_norm, config_.norm_eps), Embed(batch, pass), &stats_NS);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    EncoderTape tape;
    h_NE = EncoderForward(pass, i, weights_.layers[at], bound.layers[at], h_NE, &tape);
  }
  return h_NE;
}

at::Tensor Encoder::HeadTensor(const std::string& name, const AdapterBinding& adapters) const {
  for (const AppliedAdapter& adapter : adapters) {
    for (const NamedTensor& tensor : adapter.dense) {
      if (tensor.name == name) return tensor.value;
    }
  }
  for (const NamedTensor& tensor : weights_.classifier) {
    if (tensor.name == name) return tensor.value;
  }
  WEFT_CHECK(false, "neither the model nor an adapter has ", name);
}

at::Tensor Encoder::HeadLogits(const at::Tensor& h_LE, const AdapterBinding& adapters,
                               const ForwardOptions& options) const {
  const at::ScalarType type = dtype_ == at::kDouble ? at::kDouble : at::kFloat;
  const auto tensor = [&](const std::string& name) {
    return HeadTensor(name, adapters).to(at::TensorOptions().dtype(type).device(device_));
  };
  const auto linear = [&](const at::Tensor& x_LI, const std::string& path) {
    return at::linear(x_LI, tensor(path + ".weight"), tensor(path + ".bias"));
  };
  const at::Tensor x_LE = h_LE.to(type);
  if (config_.family == ModelFamily::kRoberta) {
    return linear(at::tanh(linear(x_LE, "classifier.dense")), "classifier.out_proj");
  }
  // BERT's pooler is a layer of the base, and so can carry adapters.
  const size_t site = sites_.size() - 1;
  at::Tensor pooled_LE = linear(x_LE, sites_[site].path);
  for (size_t j = 0; j < adapters.size(); ++j) {
    const Factors& factors = adapters[j][site];
    if (!factors.low_rank.A_RI.defined() || factors.low_rank.A_RI.size(0) == 0) continue;
    at::Tensor kept_LE = x_LE;
    if (options.training && factors.dropout > 0) {
      kept_LE = x_LE * DropoutMask(options.dropout_seed, (uint64_t{j} << 32) | site,
                                   factors.dropout, x_LE.sizes(), x_LE.options());
    }
    pooled_LE = pooled_LE + at::linear(at::linear(kept_LE, factors.low_rank.A_RI.to(type)),
                                       factors.low_rank.B_OR.to(type));
  }
  return linear(at::tanh(pooled_LE), "classifier");
}

at::Tensor Encoder::LossSum(const PackedBatch& batch, const AdapterBinding& adapters,
                            const ForwardOptions& options) const {
  WEFT_CHECK(!options.answers_V.defined(), "an encoder has classes, no answers");
  const at::Tensor logits_LV = HeadLogits(Pooled(batch, adapters, options), adapters, options);
  return at::cross_entropy_loss(logits_LV, batch.labels_L.to(device_), {}, at::Reduction::Sum);
}

at::Tensor Encoder::Logits(const PackedBatch& batch, const AdapterBinding& adapters) const {
  const at::NoGradGuard no_grad;
  const at::Tensor h_NE = HiddenStates(batch, adapters);
  const at::Tensor h_LE = h_NE.index_select(0, batch.label_at_L.to(device_));
  return HeadLogits(h_LE, adapters, {}).to(at::kFloat);
}

}  // namespace weft
