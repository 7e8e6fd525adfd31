#pragma once
// ReferenceDecoder: the decoders written down as their papers and transformers have them, one row
// and one head at a time, in float64, gradients by autograd. Slow and plain; it shares no code with
// common/model but the parsed configuration, so that the two can be held against each other.
//
// Shape legend: T tokens of a row, E hidden, D head dimension, V vocabulary, I in, O out.

#include <map>
#include <string>
#include <vector>

#include "common/model/model.h"

namespace weft::testing {

class ReferenceDecoder {
 public:
  /// Leaves in float64 of the model's weights, by HF name.
  explicit ReferenceDecoder(const Model& model);

  /// Logits [T×V] of one row.
  [[nodiscard]] at::Tensor Logits(const at::Tensor& ids_T, const AdapterBinding& adapters) const;
  /// Σ over the batch's labels of the cross-entropy, row by row.
  [[nodiscard]] at::Tensor LossSum(const PackedBatch& batch, const AdapterBinding& adapters) const;

  [[nodiscard]] const at::Tensor& weight(const std::string& name) const;

 private:
  [[nodiscard]] at::Tensor Norm(const at::Tensor& x_TE, const std::string& path) const;
  [[nodiscard]] at::Tensor Linear(const at::Tensor& x_TI, const std::string& path,
                                  const AdapterBinding& adapters) const;
  [[nodiscard]] at::Tensor Rotated(const at::Tensor& x_TD) const;
  [[nodiscard]] at::Tensor Attention(const at::Tensor& n_TE, int64_t layer,
                                     const AdapterBinding& adapters) const;
  [[nodiscard]] at::Tensor Mlp(const at::Tensor& n_TE, int64_t layer,
                               const AdapterBinding& adapters) const;
  [[nodiscard]] std::string Path(int64_t layer) const;

  ModelConfig config_;
  std::map<std::string, at::Tensor> weights_;
  std::map<std::string, size_t> sites_;
};

}  // namespace weft::testing
