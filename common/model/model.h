#pragma once
// Model: frozen weights and their forward pass. Immutable after loading and shared by threads:
// adapters are passed in with each call, so many clients train on one copy of the base.
//
// A decoder predicts tokens: its labelled positions are those in front of the labels, V is the
// vocabulary. An encoder classifies rows: each row's labelled position is its first token, its
// label a class, V the number of classes. Loss, batches and memory are otherwise the same.
//
// Shape legend: L labelled positions, N tokens, V vocabulary or classes, R rank, I in, O out.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"
#include "common/formats/model_config.h"
#include "common/tensor/packed_batch.h"
#include "common/tensor/torch.h"

namespace weft {

struct LoadOptions {
  at::ScalarType dtype = at::kFloat;  // of the computation, whatever the stored type
  at::Device device = at::Device(at::kCPU);
  bool trainable = false;  // full fine-tuning: float32 copies of the weights that take gradients
  /// The model will be fed one token at a time (generation). If not, and where float32 products are
  /// the faster ones (see WidensProducts), a bfloat16 model's matrices are widened while loading.
  bool token_by_token = false;
  /// Where the folder has no weights file: random ones (normal, initializer_range) from this seed.
  /// A weights file that exists is always read.
  std::optional<uint64_t> init_seed = std::nullopt;
  /// The same for an encoder's classification head alone, where the folder has none.
  std::optional<uint64_t> head_seed = std::nullopt;
};

/// One adapter's factors as the forward pass needs them; index = index into Model::sites().
/// Undefined tensors: not adapted.
struct Factors {
  LowRank low_rank = {};  // at scale 1, model dtype or float32
  double dropout = 0;     // on this branch's input
};
/// One adapter as the forward pass takes it: factors by site, and whole tensors that stand in for
/// the model's own of the same names (PEFT's modules_to_save); float32 or the model's dtype.
struct AppliedAdapter : std::vector<Factors> {
  AppliedAdapter() = default;
  AppliedAdapter(std::vector<Factors> factors) : std::vector<Factors>(std::move(factors)) {}
  std::vector<NamedTensor> dense;
};
/// Adapters applied together: y = W x + Σ_j B_j (A_j dropout_j(x)). [0] usually trains, later ones
/// are frozen. Of a whole tensor the first adapter's counts.
using AdapterBinding = std::vector<AppliedAdapter>;

class MatrixObserver;  // projection.h

struct ForwardOptions {
  bool gradient_checkpointing = false;
  bool training = false;      // dropout on
  uint64_t dropout_seed = 0;  // counter-based masks: keyed by (seed, site, element)
  /// A decoder's answers: its softmax is over these tokens alone (int64 [V]) and labels are indices
  /// into them. Undefined: the whole vocabulary. An encoder has its classes (checked).
  at::Tensor answers_V = {};
  MatrixObserver* observer = nullptr;  // of the loss's backward pass, which it must outlive
};

class Model {
 public:
  virtual ~Model() = default;

  /// Reads an HF folder (config.json, model.safetensors or shards). Errors name the file, tensor,
  /// got and wanted.
  [[nodiscard]] static Result<std::shared_ptr<Model>> Load(const std::filesystem::path& folder,
                                                           const LoadOptions& options);

  [[nodiscard]] virtual const ModelConfig& config() const = 0;
  [[nodiscard]] virtual const std::vector<LinearSite>& sites() const = 0;
  [[nodiscard]] virtual at::Device device() const = 0;
  [[nodiscard]] virtual at::ScalarType dtype() const = 0;

  /// Sum over the labelled positions of the cross-entropy (float32 scalar, differentiable in the
  /// binding's factors and, for a trainable model, in the weights). Divide by L for the mean.
  /// Logits exist only at label positions, in blocks.
  [[nodiscard]] virtual at::Tensor LossSum(const PackedBatch& batch, const AdapterBinding& adapters,
                                           const ForwardOptions& options) const = 0;

  /// float32 logits [L×V] at batch.label_at_L, without gradients.
  [[nodiscard]] virtual at::Tensor Logits(const PackedBatch& batch,
                                          const AdapterBinding& adapters) const = 0;

  /// Can it give logits without an adapter's dense part? An encoder without a classification head
  /// cannot.
  [[nodiscard]] virtual bool has_head() const { return true; }

  /// Incremental decoding state of a decoder; see generate.h. An encoder has none (checked).
  class Cache {
   public:
    virtual ~Cache() = default;
  };
  [[nodiscard]] virtual std::unique_ptr<Cache> NewCache() const = 0;
  /// Feeds tokens of one sequence (int64 [N]) after what the cache holds; float32 logits [V] of the
  /// last one.
  [[nodiscard]] virtual at::Tensor Step(const at::Tensor& ids_N, Cache& cache,
                                        const AdapterBinding& adapters) const = 0;

  /// Trainable weights with their HF tensor names (empty unless LoadOptions::trainable).
  [[nodiscard]] virtual std::vector<NamedTensor> TrainableWeights() const = 0;
  /// All weights with HF names, stored dtype where unchanged: for writing a (merged) model folder.
  [[nodiscard]] virtual std::vector<NamedTensor> AllWeights() const = 0;
};

}  // namespace weft
