#pragma once
// The fused CPU implementation of kernels.h's functions, for float32 and bfloat16; see there.

#include "common/model/kernels.h"

namespace weft::cpu {

/// Do the fused loops know this device and dtype?
[[nodiscard]] bool Handles(const at::Tensor& x);

at::Tensor RmsNormForward(const Norm& norm, const at::Tensor& x_NE, at::Tensor* rstd_N1);
at::Tensor RmsNormAgain(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& rstd_N1);
void RmsNormBackward(const Norm& norm, const at::Tensor& x_NE, const at::Tensor& rstd_N1,
                     const at::Tensor& dy_NE, const at::Tensor& dx_NE);
void Rotate(const RopeTable& table, const at::Tensor& positions_N, const HeadLayout& layout,
            bool inverse, const at::Tensor& qkv_NC);
at::Tensor SwiGluForward(const at::Tensor& up_NG);
void SwiGluBackward(const at::Tensor& up_NG, const at::Tensor& ds_NF);
double CrossEntropySum(const at::Tensor& logits_LV, const at::Tensor& labels_L, bool with_gradient);

at::Tensor AttentionForward(const AttentionShape& shape, const RowIndex& rows,
                            const at::Tensor& qkv_NC, at::Tensor* lse_HN);
at::Tensor AttentionBackward(const AttentionShape& shape, const RowIndex& rows,
                             const at::Tensor& qkv_NC, const at::Tensor& o_NQ,
                             const at::Tensor& lse_HN, const at::Tensor& do_NQ);

}  // namespace weft::cpu
