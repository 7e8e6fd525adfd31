#include "common/model/layer.h"

#include <utility>

namespace weft {
namespace {

void AddNormGrads(const NormWeights& weights, const NormGrads& grads, const PassContext& pass,
                  GradientSlots& gradients) {
  if (weights.weight_slot >= 0) {
    gradients.Add(pass.weight_offset + weights.weight_slot, grads.weight_E);
  }
  if (weights.bias_slot >= 0) {
    gradients.Add(pass.weight_offset + weights.bias_slot, grads.bias_E);
  }
}

struct NormedSaved {
  at::Tensor x_NE;  // the norm's input
  at::Tensor stats_NS;
  at::Tensor z_NR;
};

// y = W norm(x): adds the gradient of x to dx_NE where that is defined.
void NormedInputBackward(const PassContext& pass, const NormWeights& norm_weights,
                         const ProjectionGroup& group, const BoundGroup& bound,
                         const NormedSaved& saved, const at::Tensor& dy_NO, const at::Tensor& dx_NE,
                         GradientSlots& gradients) {
  const Norm norm = NormOf(norm_weights, pass.config->norm_eps);
  at::Tensor dz_NR;
  const at::Tensor dn_NE = ProjectInputGradient(group, bound, dy_NO, dx_NE.defined(), &dz_NR);
  const at::Tensor n_NE = NormAgain(norm, saved.x_NE, saved.stats_NS);
  ProjectParameterGradients(group, bound, {n_NE, saved.z_NR}, dy_NO, dz_NR, pass.weight_offset,
                            gradients);
  if (!dx_NE.defined()) return;
  NormGrads grads;
  const bool trains = norm_weights.weight_slot >= 0;
  NormBackward(norm, saved.x_NE, saved.stats_NS, dn_NE, dx_NE, trains ? &grads : nullptr);
  if (trains) AddNormGrads(norm_weights, grads, pass, gradients);
}

// Qwen3: RMSNorm over the features of each head, in place on a slice of [q | k | v].
void HeadNorm(const PassContext& pass, const at::Tensor& weight_D, const at::Tensor& slice_NX,
              at::Tensor* raw_MD, at::Tensor* stats_M1) {
  *raw_MD = slice_NX.reshape({-1, pass.heads.head_dim}).clone();
  const at::Tensor normed_MD =
      NormForward({weight_D, {}, pass.config->norm_eps}, *raw_MD, stats_M1);
  slice_NX.copy_(normed_MD.view(slice_NX.sizes()));
}

void HeadNormBackward(const PassContext& pass, const at::Tensor& weight_D, int64_t slot,
                      const at::Tensor& raw_MD, const at::Tensor& stats_M1,
                      const at::Tensor& slice_NX, GradientSlots& gradients) {
  const at::Tensor dy_MD = slice_NX.reshape({-1, pass.heads.head_dim});
  const at::Tensor dx_MD = at::zeros_like(raw_MD);
  NormGrads grads;
  NormBackward({weight_D, {}, pass.config->norm_eps}, raw_MD, stats_M1, dy_MD, dx_MD,
               slot >= 0 ? &grads : nullptr);
  if (slot >= 0) gradients.Add(pass.weight_offset + slot, grads.weight_E);
  slice_NX.copy_(dx_MD.view(slice_NX.sizes()));
}

}  // namespace

AttentionShape ShapeOf(const ModelConfig& config, int64_t layer) {
  const auto at = static_cast<size_t>(layer);
  return {{config.num_heads, config.num_kv_heads, config.head_dim},
          config.attention_scale[at],
          config.sliding_window[at],
          !config.is_encoder()};
}

Norm NormOf(const NormWeights& weights, double eps) {
  return {weights.weight_E, weights.bias_E, eps};
}

at::Tensor QkvForward(const PassContext& pass, const LayerWeights& weights, const BoundLayer& bound,
                      const at::Tensor& h_NE, LayerTape* tape) {
  const HeadLayout& heads = pass.heads;
  const at::Tensor n_NE =
      NormForward(NormOf(weights.norm1, pass.config->norm_eps), h_NE, &tape->stats1_NS);
  at::Tensor qkv_NC = ProjectForward(weights.qkv, bound.qkv, n_NE, {}, &tape->z_qkv_NR);
  if (weights.q_norm_D.defined()) {
    HeadNorm(pass, weights.q_norm_D, qkv_NC.narrow(1, 0, heads.q_features()), &tape->raw_q_MD,
             &tape->q_stats_M1);
    HeadNorm(pass, weights.k_norm_D, qkv_NC.narrow(1, heads.q_features(), heads.kv_features()),
             &tape->raw_k_MD, &tape->k_stats_M1);
  }
  if (pass.config->uses_rope()) Rotate(pass.rope, pass.positions_N, heads, false, qkv_NC);
  return qkv_NC;
}

at::Tensor TailForward(const PassContext& pass, const LayerWeights& weights,
                       const BoundLayer& bound, const at::Tensor& h_NE, const at::Tensor& o_NQ,
                       LayerTape* tape) {
  const ModelConfig& config = *pass.config;
  at::Tensor h2_NE = ProjectForward(weights.o, bound.o, o_NQ, h_NE, &tape->z_o_NR);
  const at::Tensor n_NE =
      NormForward(NormOf(weights.norm2, config.norm_eps), h2_NE, &tape->stats2_NS);
  at::Tensor up_NG = ProjectForward(weights.up, bound.up, n_NE, {}, &tape->z_up_NR);
  const at::Tensor s_NF = ActivationForward(config.activation, config.is_gated(), up_NG);
  at::Tensor out_NE = ProjectForward(weights.down, bound.down, s_NF, h2_NE, &tape->z_down_NR);
  tape->h2_NE = std::move(h2_NE);
  tape->up_NG = std::move(up_NG);
  return out_NE;
}

at::Tensor LayerForward(const PassContext& pass, int64_t index, const LayerWeights& weights,
                        const BoundLayer& bound, const at::Tensor& h_NE, LayerTape* tape) {
  tape->h_NE = h_NE;
  tape->qkv_NC = QkvForward(pass, weights, bound, h_NE, tape);
  tape->o_NQ =
      AttentionForward(ShapeOf(*pass.config, index), pass.rows, tape->qkv_NC, &tape->lse_HN);
  return TailForward(pass, weights, bound, h_NE, tape->o_NQ, tape);
}

at::Tensor LayerBackward(const PassContext& pass, int64_t index, const LayerWeights& weights,
                         const BoundLayer& bound, LayerTape& tape, at::Tensor dh_NE, bool want_dh,
                         GradientSlots& gradients) {
  const ModelConfig& config = *pass.config;
  const HeadLayout& heads = pass.heads;
  // MLP: out = h2 + W_down s, s = act(W_up norm(h2)). The activation step needs only its own input,
  // so ds is computed first and its memory then holds s, which the adapter's gradient needs.
  at::Tensor dz_NR;
  at::Tensor ds_NF = ProjectInputGradient(weights.down, bound.down, dh_NE, true, &dz_NR);
  ActivationBackward(config.activation, config.is_gated(), tape.up_NG, ds_NF);
  ProjectParameterGradients(weights.down, bound.down, {ds_NF, tape.z_down_NR}, dh_NE, dz_NR,
                            pass.weight_offset, gradients);
  ds_NF = at::Tensor();
  const at::Tensor dup_NG = std::exchange(tape.up_NG, at::Tensor());
  NormedInputBackward(pass, weights.norm2, weights.up, bound.up,
                      {tape.h2_NE, tape.stats2_NS, tape.z_up_NR}, dup_NG, dh_NE, gradients);
  tape.h2_NE = at::Tensor();
  // Attention: h2 = h + W_o o.
  const at::Tensor do_NQ = ProjectInputGradient(weights.o, bound.o, dh_NE, true, &dz_NR);
  ProjectParameterGradients(weights.o, bound.o, {tape.o_NQ, tape.z_o_NR}, dh_NE, dz_NR,
                            pass.weight_offset, gradients);
  const at::Tensor dqkv_NC = AttentionBackward(ShapeOf(config, index), pass.rows, tape.qkv_NC,
                                               tape.o_NQ, tape.lse_HN, do_NQ);
  tape.qkv_NC = at::Tensor();
  tape.o_NQ = at::Tensor();
  if (config.uses_rope()) Rotate(pass.rope, pass.positions_N, heads, true, dqkv_NC);
  if (weights.q_norm_D.defined()) {
    HeadNormBackward(pass, weights.q_norm_D, weights.q_norm_slot, tape.raw_q_MD, tape.q_stats_M1,
                     dqkv_NC.narrow(1, 0, heads.q_features()), gradients);
    HeadNormBackward(pass, weights.k_norm_D, weights.k_norm_slot, tape.raw_k_MD, tape.k_stats_M1,
                     dqkv_NC.narrow(1, heads.q_features(), heads.kv_features()), gradients);
  }
  NormedInputBackward(pass, weights.norm1, weights.qkv, bound.qkv,
                      {tape.h_NE, tape.stats1_NS, tape.z_qkv_NR}, dqkv_NC,
                      want_dh ? dh_NE : at::Tensor(), gradients);
  tape.h_NE = at::Tensor();
  return want_dh ? dh_NE : at::Tensor();
}

}  // namespace weft
