#pragma once
// The toy classifiers of golden/laplace, by autograd: e = emb[ids], then layers
// l(x) = x Wᵀ + s (x Aᵀ) Bᵀ with tanh between, then what the kind of model does with the last
// position. Every LoRA matrix's inputs and outputs are kept, so that its statistics and Jacobians
// can be taken.
//
// Shape legend: N examples, T tokens, C classes, O out, I in of a matrix.

#include <string>
#include <vector>

#include "common/laplace/statistics.h"
#include "tests/parity/methods/golden_set.h"

namespace weft::testing {

struct ToyLayer {
  std::string name;  // "l1"
  at::Tensor W;
  at::Tensor A;
  at::Tensor B;
};

struct ToyModel {
  at::Tensor embedding;
  std::vector<ToyLayer> layers;
  at::Tensor head;  // undefined: the last layer gives the logits, and sees the last position alone
  double scaling = 1;

  /// "l1.lora_A", "l1.lora_B", "l2.lora_A", …: the order of everything below.
  [[nodiscard]] std::vector<std::string> Matrices() const;
  [[nodiscard]] std::vector<at::Tensor> Theta() const;
};

/// Layers are found by their `<prefix>param.<layer>.lora_A.weight` and come in the order of their
/// numbers; their frozen weights are called <layer>.<base>.weight.
[[nodiscard]] ToyModel ReadToyModel(GoldenSet& golden, const std::string& prefix,
                                    const std::string& base);

/// One forward pass.
struct ToyPass {
  at::Tensor logits_NC;
  std::vector<at::Tensor> inputs_NTI;   // of each matrix
  std::vector<at::Tensor> outputs_NTO;  // keep their gradients
};
[[nodiscard]] ToyPass Forward(const ToyModel& model, const at::Tensor& ids_NT);

/// Gradients of Σ_n weights[n]·f(logits)[n] with respect to the outputs of each matrix [N×T×O].
/// Runs backward, so a pass serves once.
[[nodiscard]] std::vector<at::Tensor> OutputGradients(const ToyPass& pass,
                                                      const at::Tensor& objective);

/// ∂logits/∂W [N×C×O×I] of each matrix.
[[nodiscard]] std::vector<at::Tensor> Jacobians(const ToyModel& model, const at::Tensor& ids_NT);

/// Adds inputs and gradients of all positions, or of the last alone, to the statistics.
void AddInputs(const ToyPass& pass, bool last_only, LaplaceStatistics& statistics);
void AddGradients(const std::vector<at::Tensor>& gradients_NTO, bool last_only,
                  LaplaceStatistics& statistics);

/// Zero statistics of the model's matrices; sides from `root_from` on are roots of that rank.
[[nodiscard]] LaplaceStatistics EmptyStatistics(const ToyModel& model, int64_t root_from,
                                                int64_t rank);

/// J (H + Λ)⁻¹ Jᵀ, the sum over matrices, by the dense inverse of G ⊗ A + λI.
struct DenseBlock {
  at::Tensor G;
  at::Tensor A;
};
[[nodiscard]] at::Tensor DenseCovariance(const std::vector<DenseBlock>& blocks, double precision,
                                         const std::vector<at::Tensor>& jacobians_NCOI);

}  // namespace weft::testing
