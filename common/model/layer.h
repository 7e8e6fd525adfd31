#pragma once
// One decoder layer, forwards and backwards, without autograd: what a backward pass needs is kept
// on a LayerTape, cheap things (norm outputs, activations) are computed again. Stateless.
//
// Shape legend: N tokens, E hidden, C features of [q | k | v], Q = H·D, G gate and up, S
// statistics.

#include <cstdint>

#include "common/formats/model_config.h"
#include "common/model/kernels.h"
#include "common/model/projection.h"
#include "common/model/weights.h"

namespace weft {

/// The adapters of one layer.
struct BoundLayer {
  BoundGroup qkv, o, up, down;
};

/// What all layers of one pass share.
struct PassContext {
  const ModelConfig* config = nullptr;
  HeadLayout heads;
  RopeTable rope;
  at::Tensor positions_N;
  RowIndex rows;
  int64_t weight_offset = 0;  // slot of the first trainable weight
};

struct LayerTape {
  at::Tensor h_NE;  // the layer's input
  at::Tensor stats1_NS;
  at::Tensor z_qkv_NR;
  at::Tensor raw_q_MD, raw_k_MD;  // before the head norms (Qwen3)
  at::Tensor q_stats_M1, k_stats_M1;
  at::Tensor qkv_NC;  // turned
  at::Tensor lse_HN;
  at::Tensor o_NQ;
  at::Tensor z_o_NR;
  at::Tensor h2_NE;  // after attention
  at::Tensor stats2_NS;
  at::Tensor z_up_NR;
  at::Tensor up_NG;
  at::Tensor z_down_NR;
};

[[nodiscard]] AttentionShape ShapeOf(const ModelConfig& config, int64_t layer);
[[nodiscard]] Norm NormOf(const NormWeights& weights, double eps);

/// Norm, q·k·v product, head norms and rotation: [q | k | v] ready for attention.
at::Tensor QkvForward(const PassContext& pass, const LayerWeights& weights, const BoundLayer& bound,
                      const at::Tensor& h_NE, LayerTape* tape);
/// From attention's output to the layer's output.
at::Tensor TailForward(const PassContext& pass, const LayerWeights& weights,
                       const BoundLayer& bound, const at::Tensor& h_NE, const at::Tensor& o_NQ,
                       LayerTape* tape);

/// The layer's output. Everything a backward pass needs is left on the tape.
at::Tensor LayerForward(const PassContext& pass, int64_t index, const LayerWeights& weights,
                        const BoundLayer& bound, const at::Tensor& h_NE, LayerTape* tape);

/// Takes the gradient of the layer's output (overwritten) and the tape (emptied on the way);
/// returns that of its input, undefined unless wanted.
at::Tensor LayerBackward(const PassContext& pass, int64_t index, const LayerWeights& weights,
                         const BoundLayer& bound, LayerTape& tape, at::Tensor dh_NE, bool want_dh,
                         GradientSlots& gradients);

}  // namespace weft
