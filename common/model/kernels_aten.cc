// Compositions of ATen operations: any device, any floating dtype (float64 for the tests that
// compare with finite differences). The dispatching entry points are in kernels.cc.

#include "common/model/kernels_aten.h"

#include <limits>

#include <torch/csrc/autograd/autograd.h>

namespace weft::aten {
namespace {

at::ScalarType Wide(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// x̂ in the wide type.
at::Tensor Normalised(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS) {
  const at::Tensor wide_NE = x_NE.to(Wide(x_NE));
  if (!norm.bias_E.defined()) return wide_NE * stats_NS;
  return (wide_NE - stats_NS.narrow(1, 0, 1)) * stats_NS.narrow(1, 1, 1);
}

}  // namespace

at::Tensor NormForward(const Norm& norm, const at::Tensor& x_NE, at::Tensor* stats_NS) {
  const at::Tensor wide_NE = x_NE.to(Wide(x_NE));
  if (norm.bias_E.defined()) {
    const at::Tensor mean_N1 = wide_NE.mean(1, true);
    const at::Tensor variance_N1 = (wide_NE - mean_N1).square().mean(1, true);
    *stats_NS = at::cat({mean_N1, (variance_N1 + norm.eps).rsqrt()}, 1);
  } else {
    *stats_NS = (wide_NE.square().mean(1, true) + norm.eps).rsqrt();
  }
  return aten::NormAgain(norm, x_NE, *stats_NS);
}

at::Tensor NormAgain(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS) {
  const at::Tensor unit_NE = Normalised(norm, x_NE, stats_NS).to(x_NE.scalar_type());
  const at::Tensor y_NE = unit_NE * norm.weight_E;
  return norm.bias_E.defined() ? y_NE + norm.bias_E : y_NE;
}

// With g = dy·w: dx = rstd·(g − [mean(g)] − x̂·mean(g·x̂)); the bracket for LayerNorm only.
void NormBackward(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS,
                  const at::Tensor& dy_NE, const at::Tensor& dx_NE, NormGrads* grads) {
  const bool layer_norm = norm.bias_E.defined();
  const at::Tensor unit_NE = Normalised(norm, x_NE, stats_NS);
  const at::Tensor wide_NE = dy_NE.to(Wide(x_NE));
  at::Tensor g_NE = wide_NE * norm.weight_E;
  const at::Tensor along_N1 = (g_NE * unit_NE).mean(1, true);
  if (layer_norm) g_NE = g_NE - g_NE.mean(1, true);
  const at::Tensor rstd_N1 = layer_norm ? stats_NS.narrow(1, 1, 1) : stats_NS;
  dx_NE.add_((rstd_N1 * (g_NE - unit_NE * along_N1)).to(dx_NE.scalar_type()));
  if (grads == nullptr) return;
  grads->weight_E = (wide_NE * unit_NE).sum(0);
  if (layer_norm) grads->bias_E = wide_NE.sum(0);
}

void Rotate(const RopeTable& table, const at::Tensor& positions_N, const HeadLayout& layout,
            bool inverse, const at::Tensor& qkv_NC) {
  const int64_t turned = layout.heads + layout.kv_heads;
  const int64_t half = layout.head_dim / 2;
  const at::Tensor x_NTD =
      qkv_NC.narrow(1, 0, turned * layout.head_dim).view({-1, turned, layout.head_dim});
  const at::Tensor at_N = positions_N - table.first;
  const at::ScalarType wide = Wide(qkv_NC);
  const at::Tensor cos_N1P = table.cos_TP.index_select(0, at_N).unsqueeze(1).to(wide);
  at::Tensor sin_N1P = table.sin_TP.index_select(0, at_N).unsqueeze(1).to(wide);
  if (inverse) sin_N1P = -sin_N1P;
  const at::Tensor a_NTP = x_NTD.narrow(2, 0, half).to(wide, /*non_blocking=*/false, /*copy=*/true);
  const at::Tensor b_NTP = x_NTD.narrow(2, half, half).to(wide, false, true);
  x_NTD.narrow(2, 0, half).copy_(a_NTP * cos_N1P - b_NTP * sin_N1P);
  x_NTD.narrow(2, half, half).copy_(b_NTP * cos_N1P + a_NTP * sin_N1P);
}

namespace {

at::Tensor Activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kRelu:
      return at::relu(x);
  }
  return x;
}

at::Tensor ActivateBackward(Activation activation, const at::Tensor& dy, const at::Tensor& x) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu_backward(dy, x);
    case Activation::kGelu:
      return at::gelu_backward(dy, x);
    case Activation::kGeluTanh:
      return at::gelu_backward(dy, x, "tanh");
    case Activation::kRelu:
      return at::threshold_backward(dy, x, 0);
  }
  return dy;
}

}  // namespace

at::Tensor ActivationForward(Activation activation, bool gated, const at::Tensor& up_NG) {
  if (!gated) return Activate(activation, up_NG);
  const int64_t inner = up_NG.size(1) / 2;
  return Activate(activation, up_NG.narrow(1, 0, inner)) * up_NG.narrow(1, inner, inner);
}

void ActivationBackward(Activation activation, bool gated, const at::Tensor& up_NG,
                        const at::Tensor& ds_NF) {
  if (!gated) {
    const at::Tensor s_NF = Activate(activation, up_NG);
    up_NG.copy_(ActivateBackward(activation, ds_NF, up_NG));
    ds_NF.copy_(s_NF);
    return;
  }
  const int64_t inner = up_NG.size(1) / 2;
  const at::Tensor gate_NF = up_NG.narrow(1, 0, inner);
  const at::Tensor up_NF = up_NG.narrow(1, inner, inner);
  const at::Tensor active_NF = Activate(activation, gate_NF);
  const at::Tensor dgate_NF = ActivateBackward(activation, ds_NF * up_NF, gate_NF);
  const at::Tensor dup_NF = ds_NF * active_NF;
  ds_NF.copy_(active_NF * up_NF);
  gate_NF.copy_(dgate_NF);
  up_NF.copy_(dup_NF);
}

namespace {

// Which padded keys exist, for attention in both directions.
at::Tensor KeyMask(const RowIndex& rows, at::Device device) {
  std::vector<int64_t> lengths;
  for (size_t r = 0; r + 1 < rows.starts.size(); ++r) {
    lengths.push_back(rows.starts[r + 1] - rows.starts[r]);
  }
  const at::Tensor lengths_B = at::tensor(lengths, at::kLong).to(device);
  const at::Tensor places_T = at::arange(rows.longest, lengths_B.options());
  return (places_T.unsqueeze(0) < lengths_B.unsqueeze(1)).unsqueeze(1).unsqueeze(1);  // B11T
}

// Rows padded on the right to the longest: with a causal mask no real token ever sees the padding.
at::Tensor Attend(const AttentionShape& shape, const RowIndex& rows, const at::Tensor& qkv_NC) {
  const HeadLayout& heads = shape.layout;
  const int64_t batch = static_cast<int64_t>(rows.starts.size()) - 1;
  const int64_t repeat = heads.heads / heads.kv_heads;
  const at::Tensor padded_BTHD =
      qkv_NC.index_select(0, rows.pad_index).view({batch, rows.longest, -1, heads.head_dim});
  const auto part_BHTD = [&](int64_t begin, int64_t count, int64_t times) {
    const at::Tensor part = padded_BTHD.narrow(2, begin, count).transpose(1, 2);
    if (times == 1) return part;
    return part.unsqueeze(2)
        .expand({batch, count, times, rows.longest, heads.head_dim})
        .reshape({batch, count * times, rows.longest, heads.head_dim});
  };
  const at::Tensor q_BHTD = part_BHTD(0, heads.heads, 1);
  const at::Tensor k_BHTD = part_BHTD(heads.heads, heads.kv_heads, repeat);
  const at::Tensor v_BHTD = part_BHTD(heads.heads + heads.kv_heads, heads.kv_heads, repeat);
  std::optional<at::Tensor> mask_TT;  // or B11T
  if (!shape.causal) {
    mask_TT = KeyMask(rows, qkv_NC.device());
  } else if (shape.window > 0 && shape.window < rows.longest) {
    const at::Tensor ones =
        at::ones({rows.longest, rows.longest}, qkv_NC.options().dtype(at::kBool));
    mask_TT = ones.tril().triu(1 - shape.window);
  }
  const at::Tensor o_BHTD = at::scaled_dot_product_attention(
      q_BHTD, k_BHTD, v_BHTD, mask_TT, /*dropout_p=*/0.0, /*is_causal=*/!mask_TT, shape.scale);
  return o_BHTD.transpose(1, 2)
      .reshape({batch * rows.longest, heads.q_features()})
      .index_select(0, rows.unpad_index);
}

}  // namespace

at::Tensor AttentionForward(const AttentionShape& shape, const RowIndex& rows,
                            const at::Tensor& qkv_NC) {
  return Attend(shape, rows, qkv_NC);
}

at::Tensor AttentionBackward(const AttentionShape& shape, const RowIndex& rows,
                             const at::Tensor& qkv_NC, const at::Tensor& do_NQ) {
  const at::AutoGradMode with_grad(true);
  const at::Tensor leaf_NC = qkv_NC.detach().requires_grad_(true);
  const at::Tensor o_NQ = Attend(shape, rows, leaf_NC);
  return torch::autograd::grad({o_NQ}, {leaf_NC}, {do_NQ})[0];
}

double CrossEntropySum(const at::Tensor& logits_LV, const at::Tensor& labels_L,
                       bool with_gradient) {
  const at::Tensor wide_LV = logits_LV.to(Wide(logits_LV));
  const at::Tensor log_p_LV = at::log_softmax(wide_LV, 1);
  const at::Tensor labels_L1 = labels_L.unsqueeze(1);
  const double loss = -log_p_LV.gather(1, labels_L1).sum(at::kDouble).item<double>();
  if (with_gradient) {
    at::Tensor gradient_LV = log_p_LV.exp();
    gradient_LV.scatter_add_(1, labels_L1, at::full_like(labels_L1, -1, gradient_LV.options()));
    logits_LV.copy_(gradient_LV);
  }
  return loss;
}

}  // namespace weft::aten
