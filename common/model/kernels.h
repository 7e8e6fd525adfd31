#pragma once
// The parts of a decoder layer that are not matrix products: norms, rotation, activations,
// attention, cross-entropy, each with its backward pass. On a CPU in float32 or bfloat16 they are
// fused loops (kernels_cpu.cc, attention_cpu.cc), elsewhere compositions of ATen operations
// (kernels_aten.cc); tests hold the two equal. All run without autograd.
//
// Shape legend: N tokens, E hidden, F inner, H query heads, K key heads, D head dimension,
// C = (H + 2K)·D features of [q | k | v], T positions, L labelled tokens, V vocabulary.

#include <cstdint>
#include <vector>

#include "common/formats/model_config.h"
#include "common/tensor/torch.h"

namespace weft {

/// Which implementation runs; tests force kGeneric to compare.
enum class KernelChoice { kBest, kGeneric };
void SetKernelChoiceForTest(KernelChoice choice);

// ---- norms ----

/// RMSNorm (no bias) or LayerNorm (bias): x̂ = (x − mean)·rstd, y = x̂·w (+ b). `stats_NS` keeps
/// what the backward pass needs: [N×1] rstd, or [N×2] mean and rstd; float32 (float64 for doubles).
struct Norm {
  at::Tensor weight_E;
  at::Tensor bias_E;
  double eps = 0;
};
at::Tensor NormForward(const Norm& norm, const at::Tensor& x_NE, at::Tensor* stats_NS);
/// The same output again from the kept statistics.
at::Tensor NormAgain(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS);
/// Adds the gradient of x to dx_NE. Where wanted, writes those of weight and bias.
struct NormGrads {
  at::Tensor weight_E;
  at::Tensor bias_E;
};
void NormBackward(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS,
                  const at::Tensor& dy_NE, const at::Tensor& dx_NE, NormGrads* grads);

// ---- rotation ----

/// cos and sin of position × frequency for positions first … first + T − 1; float32 on the device.
struct RopeTable {
  at::Tensor cos_TP;  // P = D/2 pairs
  at::Tensor sin_TP;
  int64_t first = 0;
};

struct HeadLayout {
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // K
  int64_t head_dim = 0;  // D
  [[nodiscard]] int64_t q_features() const { return heads * head_dim; }
  [[nodiscard]] int64_t kv_features() const { return kv_heads * head_dim; }
  [[nodiscard]] int64_t features() const { return q_features() + 2 * kv_features(); }
};

/// Turns q and k inside qkv_NC in place; `inverse` turns back, which is also the backward pass.
void Rotate(const RopeTable& table, const at::Tensor& positions_N, const HeadLayout& layout,
            bool inverse, const at::Tensor& qkv_NC);

// ---- MLP ----

/// gate_up_NG = [gate | up] for kSilu families (G = 2F), or the single input of GPT-2's activation
/// (G = F).
at::Tensor ActivationForward(Activation activation, bool gated, const at::Tensor& up_NG);
/// Takes ds_NF; overwrites up_NG with its gradient and ds_NF with the activation's output again
/// (which the adapter of the next layer needs).
void ActivationBackward(Activation activation, bool gated, const at::Tensor& up_NG,
                        const at::Tensor& ds_NF);

// ---- attention within rows ----

struct AttentionShape {
  HeadLayout layout;
  double scale = 1;
  int64_t window = 0;  // 0: none; else token t sees (t − window, t]
  bool causal = true;  // token t sees nothing behind it; false (no window then): the whole row
};

/// Rows of a packed batch in the forms the implementations need.
struct RowIndex {
  std::vector<int64_t> starts;  // row r is [starts[r], starts[r+1])
  int64_t longest = 0;
  at::Tensor pad_index;    // [B·longest] token of each padded place, on the device
  at::Tensor unpad_index;  // [N] padded place of each token
};
[[nodiscard]] RowIndex MakeRowIndex(const std::vector<int64_t>& row_starts, at::Device device);

/// o_NQ (Q = H·D). lse_HN is what the fused backward pass needs; undefined where it needs nothing.
at::Tensor AttentionForward(const AttentionShape& shape, const RowIndex& rows,
                            const at::Tensor& qkv_NC, at::Tensor* lse_HN);
/// Gradient of qkv_NC.
at::Tensor AttentionBackward(const AttentionShape& shape, const RowIndex& rows,
                             const at::Tensor& qkv_NC, const at::Tensor& o_NQ,
                             const at::Tensor& lse_HN, const at::Tensor& do_NQ);

// ---- cross-entropy ----

/// Returns the sum over rows of lse(logits) − logits[label] as a double; `with_gradient` turns
/// logits_LV into softmax − one-hot in place.
double CrossEntropySum(const at::Tensor& logits_LV, const at::Tensor& labels_L, bool with_gradient);

}  // namespace weft
