#pragma once
// Gram: Σ v vᵀ over vectors of D elements, whole, or where D is large as a root of a few columns
// (Σ v vᵀ ≈ root·rootᵀ, an incremental SVD, Ross et al. 2008). What Laplace-LoRA keeps of the
// inputs and output gradients of a matrix (Yang et al. 2024, section 3.2). Float64, on the device
// of the vectors. A value type, copies share nothing.
//
// Shape legend: N vectors, D elements, Q columns of a root, K eigenvalues.

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "common/base/result.h"
#include "common/tensor/torch.h"

namespace weft {

/// The non-zero part of a symmetric positive semidefinite matrix: vectors·diag(values)·vectorsᵀ.
/// On the complement of the vectors, of dimension D − K, it is zero.
struct FactorEigen {
  at::Tensor values_K;    // not negative
  at::Tensor vectors_DK;  // orthonormal columns
  [[nodiscard]] int64_t dim() const { return vectors_DK.size(0); }
  /// Has the complement no dimension?
  [[nodiscard]] bool complete() const { return vectors_DK.size(0) == vectors_DK.size(1); }
};

class Gram {
 public:
  /// Zero, whole [D×D].
  [[nodiscard]] static Gram Whole(int64_t dim);
  /// Zero, kept as a root [D×Q]: what is summed up is cut to its Q leading directions whenever
  /// vectors are added, so it falls short of the sum, and by a little depends on their order.
  [[nodiscard]] static Gram Root(int64_t dim, int64_t rank);
  /// Whole sides of less than `root_from` elements, roots of `rank` columns from there on.
  [[nodiscard]] static Gram ForSide(int64_t dim, int64_t root_from, int64_t rank);
  /// From values that a file or a peer gave: [D×D] symmetric with no negative diagonal, or the
  /// [D×Q] root. kInvalidArgument for other shapes, dtypes, or values that are not finite.
  [[nodiscard]] static Result<Gram> From(const at::Tensor& values, int64_t dim, bool whole);

  [[nodiscard]] bool whole() const { return whole_; }
  [[nodiscard]] int64_t dim() const { return values_.size(0); }
  /// Columns of the root; D where it is whole.
  [[nodiscard]] int64_t rank() const { return values_.size(1); }
  /// [D×D], or the root [D×Q] whose columns come in order of their lengths, the entry of largest
  /// magnitude of each positive.
  [[nodiscard]] const at::Tensor& values() const { return values_; }

  /// Adds Σ v vᵀ of the rows [N×D], of any floating dtype.
  void Add(const at::Tensor& rows_ND);

  /// Σ v vᵀ [D×D], or root·rootᵀ.
  [[nodiscard]] at::Tensor Matrix() const;
  /// The same times a positive number.
  [[nodiscard]] Gram Times(double factor) const;
  /// A whole one (checked) plus `share` of its own diagonal and `constant` times the identity.
  [[nodiscard]] Gram WithRaisedDiagonal(double share, double constant) const;
  /// All D eigenvalues of a whole one, the Q of a root.
  [[nodiscard]] FactorEigen Decompose() const;

  /// The sum of several, all whole or all roots, of one dimension (checked). Whole ones add
  /// exactly; roots are laid side by side and cut to `rank` columns (nothing: the widest root's)
  /// once, so their order matters to rounding only.
  [[nodiscard]] static Gram Sum(std::span<const Gram* const> parts,
                                std::optional<int64_t> rank = std::nullopt);

 private:
  Gram(at::Tensor values, bool whole) : values_(std::move(values)), whole_(whole) {}

  at::Tensor values_;
  bool whole_;
};

}  // namespace weft
