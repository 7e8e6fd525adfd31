#pragma once
// What a client measures for Laplace-LoRA (Yang et al. 2024; KFAC, Martens and Grosse 2015): for
// every matrix of the adapter Σ a aᵀ of its inputs and Σ g gᵀ of its output gradients, and the
// counts to make means of them. Sums over disjoint data add, so those of all clients give what all
// data in one place would; products, eigenvalues and posteriors do not add.
//
// All clients must measure at the same adapter, bit for bit: (B, A) and (B·M, M⁻¹·A) are one model
// with different factors.
//
// A matrix W [O×I] reads a and writes W a: for LoRA's A, a = x and g is the gradient of A x; for B,
// a = A x and g is the gradient of B A x, so with the scaling in it.
//
// Shape legend: O out, I in.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/laplace/gram.h"

namespace weft {

struct MatrixStatistics {
  std::string name;   // unique within the adapter: path of the site and name of the tensor
  uint64_t rows = 0;  // inputs summed: token positions, those of padding left out
  Gram input;         // Σ a aᵀ [I×I]
  /// Σ g gᵀ [O×O], g the gradient of one example's negative log-likelihood. Of the exact Fisher:
  /// over all classes, g_c √p_c; else of labels drawn from the model.
  Gram output;
};

struct LaplaceStatistics {
  std::string adapter_hash;
  uint64_t examples = 0;
  uint64_t batches = 0;       // official bayesian_lora divides by it
  double log_likelihood = 0;  // Σ log p(label), natural logarithm
  std::vector<MatrixStatistics> matrices;
};

/// Whose statistics they are, for errors and for the order of sums.
struct ClientStatistics {
  std::string client;
  const LaplaceStatistics* statistics = nullptr;
};

/// kInvalidArgument when counts are zero, the log-likelihood is positive or not finite, or names
/// are doubled.
[[nodiscard]] Status CheckStatistics(const LaplaceStatistics& statistics);

/// What statistics of an adapter must be: its hash, and each matrix's name and shape.
struct MeasuredMatrix {
  std::string name;
  int64_t out = 0;
  int64_t in = 0;
};
/// kFailedPrecondition naming what differs where they were measured at another adapter, or kept
/// otherwise: sides of `root_from` elements and more as roots, others whole.
[[nodiscard]] Status CheckMeasuredAt(const LaplaceStatistics& statistics,
                                     const std::string& adapter_hash,
                                     std::span<const MeasuredMatrix> matrices, int64_t root_from);

/// The sum over clients, in the order of their names. `root_rank`: columns of the merged roots
/// (nothing: the widest client's; a server can afford more). kInvalidArgument for no client, one
/// named twice or statistics that CheckStatistics refuses; kFailedPrecondition where a client's
/// adapter hash, matrices, shapes or kinds of factors differ from the first one's; errors name the
/// client and what differs.
[[nodiscard]] Result<LaplaceStatistics> MergeStatistics(
    std::span<const ClientStatistics> clients, std::optional<int64_t> root_rank = std::nullopt);

}  // namespace weft
