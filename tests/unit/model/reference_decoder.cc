#include "tests/unit/model/reference_decoder.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "common/base/check.h"

namespace weft::testing {
namespace {

// Radians per position of pair i; Su et al. 2021, stretched as each type says. Written from the
// papers, in float64.
double Frequency(const RopeConfig& rope, int64_t head_dim, int64_t i) {
  const double plain =
      std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  if (rope.type == RopeType::kLinear) return plain / rope.factor;
  if (rope.type != RopeType::kLlama3) {
    WEFT_CHECK(rope.type == RopeType::kDefault, "no reference for this rope");
    return plain;
  }
  // Llama 3.1: waves that fit often into the original context stay, those that hardly fit once are
  // stretched.
  const double turns =
      static_cast<double>(rope.original_positions) * plain / (2 * std::numbers::pi);
  if (turns > rope.high_freq_factor) return plain;
  if (turns < rope.low_freq_factor) return plain / rope.factor;
  const double smooth =
      (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * plain / rope.factor + smooth * plain;
}

at::Tensor Activated(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + at::exp(-x));
    case Activation::kGelu:
      return x * 0.5 * (1 + at::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return x * 0.5 *
             (1 + at::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * at::pow(x, 3))));
    case Activation::kRelu:
      return at::clamp_min(x, 0);
  }
  return x;
}

}  // namespace

ReferenceDecoder::ReferenceDecoder(const Model& model) : config_(model.config()) {
  for (const NamedTensor& weight : model.AllWeights()) {
    weights_[weight.name] =
        weight.value.detach().to(at::kDouble, false, /*copy=*/true).requires_grad_(true);
  }
  for (size_t i = 0; i < model.sites().size(); ++i) sites_[model.sites()[i].path] = i;
}

const at::Tensor& ReferenceDecoder::weight(const std::string& name) const {
  const auto found = weights_.find(name);
  WEFT_CHECK(found != weights_.end(), name);
  return found->second;
}

std::string ReferenceDecoder::Path(int64_t layer) const {
  return (config_.family == ModelFamily::kGpt2 ? "transformer.h." : "model.layers.") +
         std::to_string(layer) + ".";
}

at::Tensor ReferenceDecoder::Norm(const at::Tensor& x_TE, const std::string& path) const {
  const at::Tensor& w_E = weight(path + ".weight");
  if (config_.family != ModelFamily::kGpt2) {
    return x_TE / at::sqrt(x_TE.pow(2).mean(-1, true) + config_.norm_eps) * w_E;
  }
  const at::Tensor mean_T1 = x_TE.mean(-1, true);
  const at::Tensor variance_T1 = (x_TE - mean_T1).pow(2).mean(-1, true);
  return (x_TE - mean_T1) / at::sqrt(variance_T1 + config_.norm_eps) * w_E + weight(path + ".bias");
}

at::Tensor ReferenceDecoder::Linear(const at::Tensor& x_TI, const std::string& path,
                                    const AdapterBinding& adapters) const {
  const at::Tensor& w = weight(path + ".weight");
  at::Tensor y_TO = at::matmul(x_TI, config_.family == ModelFamily::kGpt2 ? w : w.t());
  if (const auto bias = weights_.find(path + ".bias"); bias != weights_.end()) {
    y_TO = y_TO + bias->second;
  }
  for (const std::vector<Factors>& adapter : adapters) {
    const LowRank& factors = adapter[sites_.at(path)].low_rank;
    if (!factors.A_RI.defined()) continue;
    const at::Tensor dW_OI = at::matmul(factors.B_OR.to(at::kDouble), factors.A_RI.to(at::kDouble));
    y_TO = y_TO + at::matmul(x_TI, dW_OI.t());
  }
  return y_TO;
}

// HF's layout: feature i is turned together with feature i + D/2.
at::Tensor ReferenceDecoder::Rotated(const at::Tensor& x_TD) const {
  const int64_t half = config_.head_dim / 2;
  std::vector<at::Tensor> low, high;
  const at::Tensor positions_T = at::arange(x_TD.size(0), at::kDouble);
  for (int64_t i = 0; i < half; ++i) {
    const at::Tensor angle_T = positions_T * Frequency(config_.rope, config_.head_dim, i);
    const at::Tensor a_T = x_TD.select(1, i), b_T = x_TD.select(1, i + half);
    low.push_back(a_T * at::cos(angle_T) - b_T * at::sin(angle_T));
    high.push_back(b_T * at::cos(angle_T) + a_T * at::sin(angle_T));
  }
  low.insert(low.end(), high.begin(), high.end());
  return at::stack(low, 1) * config_.rope.attention_factor;
}

at::Tensor ReferenceDecoder::Attention(const at::Tensor& n_TE, int64_t layer,
                                       const AdapterBinding& adapters) const {
  const auto at_layer = static_cast<size_t>(layer);
  const int64_t dim = config_.head_dim, tokens = n_TE.size(0);
  at::Tensor q, k, v;
  if (config_.family == ModelFamily::kGpt2) {
    const at::Tensor qkv = Linear(n_TE, Path(layer) + "attn.c_attn", adapters);
    q = qkv.narrow(1, 0, config_.hidden_size);
    k = qkv.narrow(1, config_.hidden_size, config_.hidden_size);
    v = qkv.narrow(1, 2 * config_.hidden_size, config_.hidden_size);
  } else {
    q = Linear(n_TE, Path(layer) + "self_attn.q_proj", adapters);
    k = Linear(n_TE, Path(layer) + "self_attn.k_proj", adapters);
    v = Linear(n_TE, Path(layer) + "self_attn.v_proj", adapters);
  }
  const auto prepared = [&](const at::Tensor& x, int64_t head, const std::string& norm) {
    at::Tensor x_TD = x.narrow(1, head * dim, dim);
    if (config_.qk_norm) x_TD = Norm(x_TD, Path(layer) + "self_attn." + norm);
    return config_.uses_rope() ? Rotated(x_TD) : x_TD;
  };
  // Token t sees (t − window, t].
  at::Tensor hidden_TT = at::zeros({tokens, tokens}, at::kBool);
  bool* const hidden = hidden_TT.mutable_data_ptr<bool>();
  const int64_t window = config_.sliding_window[at_layer];
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t s = 0; s < tokens; ++s) {
      hidden[t * tokens + s] = s > t || (window > 0 && s <= t - window);
    }
  }
  std::vector<at::Tensor> heads;
  for (int64_t h = 0; h < config_.num_heads; ++h) {
    const int64_t shared = h / (config_.num_heads / config_.num_kv_heads);
    const at::Tensor scores_TT =
        at::matmul(prepared(q, h, "q_norm"), prepared(k, shared, "k_norm").t()) *
        config_.attention_scale[at_layer];
    const at::Tensor p_TT =
        at::softmax(scores_TT.masked_fill(hidden_TT, -std::numeric_limits<double>::infinity()), -1);
    heads.push_back(at::matmul(p_TT, v.narrow(1, shared * dim, dim)));
  }
  const bool gpt2 = config_.family == ModelFamily::kGpt2;
  return Linear(at::cat(heads, 1), Path(layer) + (gpt2 ? "attn.c_proj" : "self_attn.o_proj"),
                adapters);
}

at::Tensor ReferenceDecoder::Mlp(const at::Tensor& n_TE, int64_t layer,
                                 const AdapterBinding& adapters) const {
  const std::string mlp = Path(layer) + "mlp.";
  if (config_.family == ModelFamily::kGpt2) {
    const at::Tensor up = Activated(config_.activation, Linear(n_TE, mlp + "c_fc", adapters));
    return Linear(up, mlp + "c_proj", adapters);
  }
  const at::Tensor gate = Activated(config_.activation, Linear(n_TE, mlp + "gate_proj", adapters));
  return Linear(gate * Linear(n_TE, mlp + "up_proj", adapters), mlp + "down_proj", adapters);
}

at::Tensor ReferenceDecoder::Logits(const at::Tensor& ids_T, const AdapterBinding& adapters) const {
  const bool gpt2 = config_.family == ModelFamily::kGpt2;
  const at::Tensor& embed_VE =
      weight(gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight");
  at::Tensor h_TE = embed_VE.index_select(0, ids_T);
  if (gpt2) h_TE = h_TE + weight("transformer.wpe.weight").narrow(0, 0, ids_T.size(0));
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const std::string path = Path(i);
    h_TE = h_TE + Attention(Norm(h_TE, path + (gpt2 ? "ln_1" : "input_layernorm")), i, adapters);
    h_TE = h_TE + Mlp(Norm(h_TE, path + (gpt2 ? "ln_2" : "post_attention_layernorm")), i, adapters);
  }
  h_TE = Norm(h_TE, gpt2 ? "transformer.ln_f" : "model.norm");
  return at::matmul(h_TE, (config_.tie_word_embeddings ? embed_VE : weight("lm_head.weight")).t());
}

at::Tensor ReferenceDecoder::LossSum(const PackedBatch& batch,
                                     const AdapterBinding& adapters) const {
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (size_t r = 0; r + 1 < batch.row_starts.size(); ++r) {
    const int64_t begin = batch.row_starts[r], end = batch.row_starts[r + 1];
    const at::Tensor logits_TV = Logits(batch.ids_N.slice(0, begin, end), adapters);
    const at::Tensor log_p_TV = at::log_softmax(logits_TV, 1);
    for (int64_t l = 0; l < batch.labels_L.size(0); ++l) {
      const auto place = batch.label_at_L[l].item<int64_t>();
      if (place < begin || place >= end) continue;
      sum = sum - log_p_TV[place - begin][batch.labels_L[l].item<int64_t>()];
    }
  }
  return sum;
}

}  // namespace weft::testing
