#pragma once
// Encoder: the Model of model.h that gives rows a class (BERT, RoBERTa). Hidden states are one
// autograd node, as the decoder's loss is; the classification head above it, a few rows of a few
// products, is left to autograd. Immutable after construction; any number of threads may call it at
// once.
//
// Shape legend: N packed tokens, L rows with a label, V classes, E hidden.

#include <memory>
#include <vector>

#include "common/model/bound_adapters.h"
#include "common/model/encoder_layer.h"
#include "common/model/model.h"
#include "common/model/weights.h"

namespace weft {

class Encoder final : public Model, public std::enable_shared_from_this<Encoder> {
 public:
  Encoder(ModelConfig config, ModelWeights weights, at::Device device, at::ScalarType dtype);

  const ModelConfig& config() const override { return config_; }
  const std::vector<LinearSite>& sites() const override { return sites_; }
  at::Device device() const override { return device_; }
  at::ScalarType dtype() const override { return dtype_; }
  at::Tensor LossSum(const PackedBatch& batch, const AdapterBinding& adapters,
                     const ForwardOptions& options) const override;
  at::Tensor Logits(const PackedBatch& batch, const AdapterBinding& adapters) const override;
  bool has_head() const override;
  std::unique_ptr<Cache> NewCache() const override;
  at::Tensor Step(const at::Tensor& ids_N, Cache& cache,
                  const AdapterBinding& adapters) const override;
  std::vector<NamedTensor> TrainableWeights() const override { return weights_.trainable; }
  std::vector<NamedTensor> AllWeights() const override { return weights_.named; }

  /// The last layer's output [N×E] in the model's dtype, without gradients.
  [[nodiscard]] at::Tensor HiddenStates(const PackedBatch& batch,
                                        const AdapterBinding& adapters) const;

  // For the backward pass (encoder_node.cc).
  const ModelWeights& weights() const { return weights_; }
  PassContext MakePass(const PackedBatch& batch) const;
  /// The sum of the three embeddings [N×E], before their norm.
  at::Tensor Embed(const PackedBatch& batch, const PassContext& pass) const;

 private:
  /// The hidden state of each labelled position [L×E], differentiable where gradients are wanted.
  at::Tensor Pooled(const PackedBatch& batch, const AdapterBinding& adapters,
                    const ForwardOptions& options) const;
  /// float32 (float64 for a double model) logits [L×V] by autograd.
  at::Tensor HeadLogits(const at::Tensor& h_LE, const AdapterBinding& adapters,
                        const ForwardOptions& options) const;
  /// The first adapter's tensor of that name, or the model's own; one of them must be there.
  at::Tensor HeadTensor(const std::string& name, const AdapterBinding& adapters) const;

  ModelConfig config_;
  ModelWeights weights_;
  std::vector<LinearSite> sites_;
  at::Device device_;
  at::ScalarType dtype_;
};

}  // namespace weft
