#pragma once
// The generic implementation of kernels.h's functions; see there.

#include "common/model/kernels.h"

namespace weft::aten {

at::Tensor NormForward(const Norm& norm, const at::Tensor& x_NE, at::Tensor* stats_NS);
at::Tensor NormAgain(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS);
void NormBackward(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& stats_NS,
                  const at::Tensor& dy_NE, const at::Tensor& dx_NE, NormGrads* grads);
void Rotate(const RopeTable& table, const at::Tensor& positions_N, const HeadLayout& layout,
            bool inverse, const at::Tensor& qkv_NC);
at::Tensor ActivationForward(Activation activation, bool gated, const at::Tensor& up_NG);
void ActivationBackward(Activation activation, bool gated, const at::Tensor& up_NG,
                        const at::Tensor& ds_NF);
at::Tensor AttentionForward(const AttentionShape& shape, const RowIndex& rows,
                            const at::Tensor& qkv_NC);
at::Tensor AttentionBackward(const AttentionShape& shape, const RowIndex& rows,
                             const at::Tensor& qkv_NC, const at::Tensor& do_NQ);
double CrossEntropySum(const at::Tensor& logits_LV, const at::Tensor& labels_L, bool with_gradient);

}  // namespace weft::aten
