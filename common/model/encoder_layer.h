#pragma once
// One encoder layer (BERT's), forwards and backwards, without autograd:
//   s1 = h + W_o attention(W_qkv h),  m = norm1(s1),  s2 = m + W_down act(W_up m),  out =
//   norm2(s2).
// Stateless.
//
// Shape legend: N tokens, E hidden, C features of [q | k | v], Q = H·D, F inner, S statistics.

#include <cstdint>

#include "common/model/layer.h"

namespace weft {

/// What the backward pass needs; m and the activation's output are computed again.
struct EncoderTape {
  at::Tensor h_NE;  // the layer's input
  at::Tensor z_qkv_NR;
  at::Tensor qkv_NC;
  at::Tensor lse_HN;
  at::Tensor o_NQ;
  at::Tensor z_o_NR;
  at::Tensor sum1_NE;  // s1
  at::Tensor stats1_NS;
  at::Tensor z_up_NR;
  at::Tensor up_NF;
  at::Tensor z_down_NR;
  at::Tensor sum2_NE;  // s2
  at::Tensor stats2_NS;
};

/// The layer's output. Everything a backward pass needs is left on the tape.
at::Tensor EncoderForward(const PassContext& pass, int64_t index, const LayerWeights& weights,
                          const BoundLayer& bound, const at::Tensor& h_NE, EncoderTape* tape);

/// Takes the gradient of the layer's output and the tape (emptied on the way); returns that of its
/// input, undefined unless wanted.
at::Tensor EncoderBackward(const PassContext& pass, int64_t index, const LayerWeights& weights,
                           const BoundLayer& bound, EncoderTape& tape, const at::Tensor& dh_NE,
                           bool want_dh, GradientSlots& gradients);

/// The gradient of a norm's input; those of its weight and bias go to their slots.
at::Tensor NormInputGradient(const PassContext& pass, const NormWeights& weights,
                             const at::Tensor& x_NE, const at::Tensor& stats_NS,
                             const at::Tensor& dy_NE, GradientSlots& gradients);

}  // namespace weft
