#include "common/model/decoder.h"

#include <utility>

#include "common/base/check.h"
#include "common/formats/model_layout.h"
#include "common/formats/rope.h"

namespace weft {

Decoder::Decoder(ModelConfig config, ModelWeights weights, at::Device device, at::ScalarType dtype)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      sites_(LinearSites(config_)),
      device_(device),
      dtype_(dtype) {}

BoundAdapters Decoder::Bind(const AdapterBinding& adapters, const ForwardOptions& options,
                            bool with_gradients) const {
  return BindAdapters({weights_, sites_, dtype_, device_}, adapters, options, with_gradients);
}

RopeTable Decoder::MakeRope(int64_t first, int64_t count) const {
  RopeTable table;
  table.first = first;
  if (!config_.uses_rope()) return table;
  const std::vector<float> frequencies =
      RopeInverseFrequencies(config_.rope, config_.head_dim, config_.max_positions, first + count);
  const at::Tensor positions_T = at::arange(first, first + count, at::kFloat);
  const at::Tensor angle_TP = at::outer(positions_T, at::tensor(frequencies, at::kFloat));
  const double factor = config_.rope.attention_factor;
  table.cos_TP = at::cos(angle_TP).mul_(factor).to(device_);
  table.sin_TP = at::sin(angle_TP).mul_(factor).to(device_);
  return table;
}

PassContext Decoder::MakePass(const PackedBatch& batch) const {
  WEFT_CHECK(batch.row_starts.size() >= 2 && batch.row_starts.front() == 0 &&
                 batch.row_starts.back() == batch.ids_N.size(0),
             "a packed batch has rows that cover its tokens");
  PassContext pass;
  pass.config = &config_;
  pass.heads = {config_.num_heads, config_.num_kv_heads, config_.head_dim};
  pass.positions_N = batch.positions_N.to(device_);
  pass.rows = MakeRowIndex(batch.row_starts, device_);
  pass.rope = MakeRope(0, pass.rows.longest);
  return pass;
}

at::Tensor Decoder::Embed(const at::Tensor& ids_N, const at::Tensor& positions_N) const {
  const at::Tensor h_NE = weights_.embed_VE.index_select(0, ids_N.to(device_));
  if (weights_.positions_PE.defined()) {
    h_NE.add_(weights_.positions_PE.index_select(0, positions_N));
  }
  return h_NE;
}

at::Tensor Decoder::Hidden(const PassContext& pass, const BoundAdapters& bound,
                           const at::Tensor& ids_N) const {
  at::Tensor h_NE = Embed(ids_N, pass.positions_N);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    LayerTape tape;
    h_NE = LayerForward(pass, i, weights_.layers[at], bound.layers[at], h_NE, &tape);
  }
  return h_NE;
}

at::Tensor Decoder::HeadLogits(const at::Tensor& h_LE) const {
  at::Tensor stats;
  const at::Tensor n_LE = NormForward(NormOf(weights_.final_norm, config_.norm_eps), h_LE, &stats);
  const at::ScalarType type = ProductType(n_LE, weights_.head_VE);
  return n_LE.to(type).mm(weights_.head_VE.to(type).t()).to(at::kFloat);
}

at::Tensor Decoder::Logits(const PackedBatch& batch, const AdapterBinding& adapters) const {
  const at::NoGradGuard no_grad;
  const BoundAdapters bound = Bind(adapters, {}, false);
  const PassContext pass = MakePass(batch);
  const at::Tensor h_NE = Hidden(pass, bound, batch.ids_N);
  return HeadLogits(h_NE.index_select(0, batch.label_at_L.to(device_)));
}

}  // namespace weft
