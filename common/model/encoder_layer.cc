#include "common/model/encoder_layer.h"

#include <utility>

namespace weft {
namespace {

// y = W x: the gradient of x, undefined unless wanted; those of factors and weights go to their
// slots.
at::Tensor ProjectionBackward(const PassContext& pass, const ProjectionGroup& group,
                              const BoundGroup& bound, const ProjectionSaved& saved,
                              const at::Tensor& dy_NO, bool want_dx, GradientSlots& gradients) {
  at::Tensor dz_NR;
  at::Tensor dx_NI = ProjectInputGradient(group, bound, dy_NO, want_dx, &dz_NR);
  ProjectParameterGradients(group, bound, saved, dy_NO, dz_NR, pass.weight_offset, gradients);
  return dx_NI;
}

}  // namespace

at::Tensor NormInputGradient(const PassContext& pass, const NormWeights& weights,
                             const at::Tensor& x_NE, const at::Tensor& stats_NS,
                             const at::Tensor& dy_NE, GradientSlots& gradients) {
  at::Tensor dx_NE = at::zeros_like(x_NE);
  NormGrads grads;
  const bool trains = weights.weight_slot >= 0;
  NormBackward(NormOf(weights, pass.config->norm_eps), x_NE, stats_NS, dy_NE, dx_NE,
               trains ? &grads : nullptr);
  if (trains) {
    gradients.Add(pass.weight_offset + weights.weight_slot, grads.weight_E);
    gradients.Add(pass.weight_offset + weights.bias_slot, grads.bias_E);
  }
  return dx_NE;
}

at::Tensor EncoderForward(const PassContext& pass, int64_t index, const LayerWeights& weights,
                          const BoundLayer& bound, const at::Tensor& h_NE, EncoderTape* tape) {
  const ModelConfig& config = *pass.config;
  tape->h_NE = h_NE;
  tape->qkv_NC = ProjectForward(weights.qkv, bound.qkv, h_NE, {}, &tape->z_qkv_NR);
  tape->o_NQ = AttentionForward(ShapeOf(config, index), pass.rows, tape->qkv_NC, &tape->lse_HN);
  tape->sum1_NE = ProjectForward(weights.o, bound.o, tape->o_NQ, h_NE, &tape->z_o_NR);
  const at::Tensor m_NE =
      NormForward(NormOf(weights.norm1, config.norm_eps), tape->sum1_NE, &tape->stats1_NS);
  tape->up_NF = ProjectForward(weights.up, bound.up, m_NE, {}, &tape->z_up_NR);
  const at::Tensor s_NF = ActivationForward(config.activation, false, tape->up_NF);
  tape->sum2_NE = ProjectForward(weights.down, bound.down, s_NF, m_NE, &tape->z_down_NR);
  return NormForward(NormOf(weights.norm2, config.norm_eps), tape->sum2_NE, &tape->stats2_NS);
}

at::Tensor EncoderBackward(const PassContext& pass, int64_t index, const LayerWeights& weights,
                           const BoundLayer& bound, EncoderTape& tape, const at::Tensor& dh_NE,
                           bool want_dh, GradientSlots& gradients) {
  const ModelConfig& config = *pass.config;
  const at::Tensor dsum2_NE =
      NormInputGradient(pass, weights.norm2, tape.sum2_NE, tape.stats2_NS, dh_NE, gradients);
  tape.sum2_NE = at::Tensor();
  // The activation step needs only its own input, so ds is computed first and its memory then holds
  // s, which the adapter's gradient needs.
  at::Tensor dz_NR;
  at::Tensor ds_NF = ProjectInputGradient(weights.down, bound.down, dsum2_NE, true, &dz_NR);
  ActivationBackward(config.activation, false, tape.up_NF, ds_NF);
  ProjectParameterGradients(weights.down, bound.down, {ds_NF, tape.z_down_NR}, dsum2_NE, dz_NR,
                            pass.weight_offset, gradients);
  ds_NF = at::Tensor();
  const at::Tensor dup_NF = std::exchange(tape.up_NF, at::Tensor());
  const at::Tensor m_NE =
      NormAgain(NormOf(weights.norm1, config.norm_eps), tape.sum1_NE, tape.stats1_NS);
  const at::Tensor dm_NE =
      ProjectionBackward(pass, weights.up, bound.up, {m_NE, tape.z_up_NR}, dup_NF, true, gradients)
          .add_(dsum2_NE);
  const at::Tensor dsum1_NE =
      NormInputGradient(pass, weights.norm1, tape.sum1_NE, tape.stats1_NS, dm_NE, gradients);
  tape.sum1_NE = at::Tensor();
  const at::Tensor do_NQ = ProjectionBackward(pass, weights.o, bound.o, {tape.o_NQ, tape.z_o_NR},
                                              dsum1_NE, true, gradients);
  const at::Tensor dqkv_NC = AttentionBackward(ShapeOf(config, index), pass.rows, tape.qkv_NC,
                                               tape.o_NQ, tape.lse_HN, do_NQ);
  tape.qkv_NC = at::Tensor();
  tape.o_NQ = at::Tensor();
  at::Tensor dx_NE = ProjectionBackward(pass, weights.qkv, bound.qkv, {tape.h_NE, tape.z_qkv_NR},
                                        dqkv_NC, want_dh, gradients);
  tape.h_NE = at::Tensor();
  return want_dh ? dx_NE.add_(dsum1_NE) : at::Tensor();
}

}  // namespace weft
