#include "common/model/kernels.h"

#include <atomic>

#include "common/model/kernels_aten.h"
#include "common/model/kernels_cpu.h"

namespace weft {
namespace {

std::atomic<KernelChoice> g_choice{KernelChoice::kBest};

bool Fused(const at::Tensor& x) {
  return g_choice.load(std::memory_order_relaxed) == KernelChoice::kBest && cpu::Handles(x);
}

}  // namespace

void SetKernelChoiceForTest(KernelChoice choice) { g_choice = choice; }

RowIndex MakeRowIndex(const std::vector<int64_t>& row_starts, at::Device device) {
  RowIndex rows;
  rows.starts = row_starts;
  for (size_t r = 0; r + 1 < row_starts.size(); ++r) {
    rows.longest = std::max(rows.longest, row_starts[r + 1] - row_starts[r]);
  }
  std::vector<int64_t> pad, unpad;
  for (size_t r = 0; r + 1 < row_starts.size(); ++r) {
    const int64_t length = row_starts[r + 1] - row_starts[r];
    for (int64_t t = 0; t < rows.longest; ++t) {
      // Padding repeats the row's first token; nothing reads what is computed there.
      pad.push_back(row_starts[r] + (t < length ? t : 0));
      if (t < length) unpad.push_back(static_cast<int64_t>(r) * rows.longest + t);
    }
  }
  rows.pad_index = at::tensor(pad, at::kLong).to(device);
  rows.unpad_index = at::tensor(unpad, at::kLong).to(device);
  return rows;
}

at::Tensor NormForward(const Norm& norm, const at::Tensor& x_NE, at::Tensor* stats_NS) {
  if (Fused(x_NE) && Fused(norm.weight_E) && !norm.bias_E.defined()) {
    return cpu::RmsNormForward(norm, x_NE, stats_NS);
  }
  return aten::NormForward(norm, x_NE, stats_NS);
}

at::Tensor NormAgain(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS) {
  if (Fused(x_NE) && Fused(norm.weight_E) && !norm.bias_E.defined()) {
    return cpu::RmsNormAgain(norm, x_NE, stats_NS);
  }
  return aten::NormAgain(norm, x_NE, stats_NS);
}

void NormBackward(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS,
                  const at::Tensor& dy_NE, const at::Tensor& dx_NE, NormGrads* grads) {
  const bool fused = Fused(x_NE) && Fused(norm.weight_E) && Fused(dy_NE) && Fused(dx_NE);
  if (fused && !norm.bias_E.defined() && grads == nullptr) {
    cpu::RmsNormBackward(norm, x_NE, stats_NS, dy_NE, dx_NE);
  } else {
    aten::NormBackward(norm, x_NE, stats_NS, dy_NE, dx_NE, grads);
  }
}

void Rotate(const RopeTable& table, const at::Tensor& positions_N, const HeadLayout& layout,
            bool inverse, const at::Tensor& qkv_NC) {
  if (Fused(qkv_NC)) {
    cpu::Rotate(table, positions_N, layout, inverse, qkv_NC);
  } else {
    aten::Rotate(table, positions_N, layout, inverse, qkv_NC);
  }
}

at::Tensor ActivationForward(Activation activation, bool gated, const at::Tensor& up_NG) {
  if (gated && activation == Activation::kSilu && Fused(up_NG)) return cpu::SwiGluForward(up_NG);
  return aten::ActivationForward(activation, gated, up_NG);
}

void ActivationBackward(Activation activation, bool gated, const at::Tensor& up_NG,
                        const at::Tensor& ds_NF) {
  if (gated && activation == Activation::kSilu && Fused(up_NG) && Fused(ds_NF)) {
    cpu::SwiGluBackward(up_NG, ds_NF);
  } else {
    aten::ActivationBackward(activation, gated, up_NG, ds_NF);
  }
}

at::Tensor AttentionForward(const AttentionShape& shape, const RowIndex& rows,
                            const at::Tensor& qkv_NC, at::Tensor* lse_HN) {
  if (Fused(qkv_NC)) return cpu::AttentionForward(shape, rows, qkv_NC, lse_HN);
  *lse_HN = at::Tensor();
  return aten::AttentionForward(shape, rows, qkv_NC);
}

at::Tensor AttentionBackward(const AttentionShape& shape, const RowIndex& rows,
                             const at::Tensor& qkv_NC, const at::Tensor& o_NQ,
                             const at::Tensor& lse_HN, const at::Tensor& do_NQ) {
  if (lse_HN.defined() && Fused(qkv_NC) && Fused(do_NQ)) {
    return cpu::AttentionBackward(shape, rows, qkv_NC, o_NQ, lse_HN, do_NQ);
  }
  return aten::AttentionBackward(shape, rows, qkv_NC, do_NQ);
}

double CrossEntropySum(const at::Tensor& logits_LV, const at::Tensor& labels_L,
                       bool with_gradient) {
  if (Fused(logits_LV)) return cpu::CrossEntropySum(logits_LV, labels_L, with_gradient);
  return aten::CrossEntropySum(logits_LV, labels_L, with_gradient);
}

}  // namespace weft
