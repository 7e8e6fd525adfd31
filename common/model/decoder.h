#pragma once
// Decoder: the Model of model.h for all families that predict tokens. Immutable after construction;
// any number of threads may call it at once.
//
// Shape legend: N packed tokens, L labelled positions, V vocabulary, E hidden, R rank, I in, O out.

#include <memory>
#include <vector>

#include "common/model/bound_adapters.h"
#include "common/model/layer.h"
#include "common/model/model.h"
#include "common/model/weights.h"

namespace weft {

class Decoder final : public Model, public std::enable_shared_from_this<Decoder> {
 public:
  Decoder(ModelConfig config, ModelWeights weights, at::Device device, at::ScalarType dtype);

  const ModelConfig& config() const override { return config_; }
  const std::vector<LinearSite>& sites() const override { return sites_; }
  at::Device device() const override { return device_; }
  at::ScalarType dtype() const override { return dtype_; }
  at::Tensor LossSum(const PackedBatch& batch, const AdapterBinding& adapters,
                     const ForwardOptions& options) const override;
  at::Tensor Logits(const PackedBatch& batch, const AdapterBinding& adapters) const override;
  std::unique_ptr<Cache> NewCache() const override;
  at::Tensor Step(const at::Tensor& ids_N, Cache& cache,
                  const AdapterBinding& adapters) const override;
  std::vector<NamedTensor> TrainableWeights() const override { return weights_.trainable; }
  std::vector<NamedTensor> AllWeights() const override { return weights_.named; }

  // For the backward pass (decoder_loss.cc).
  const ModelWeights& weights() const { return weights_; }
  BoundAdapters Bind(const AdapterBinding& adapters, const ForwardOptions& options,
                     bool with_gradients) const;
  PassContext MakePass(const PackedBatch& batch) const;
  RopeTable MakeRope(int64_t first, int64_t count) const;
  at::Tensor Embed(const at::Tensor& ids_N, const at::Tensor& positions_N) const;
  /// Runs all layers, keeping nothing.
  at::Tensor Hidden(const PassContext& pass, const BoundAdapters& bound,
                    const at::Tensor& ids_N) const;
  /// Final norm and output head; float32.
  at::Tensor HeadLogits(const at::Tensor& h_LE) const;

 private:
  ModelConfig config_;
  ModelWeights weights_;
  std::vector<LinearSite> sites_;
  at::Device device_;
  at::ScalarType dtype_;
};

}  // namespace weft
