#pragma once
// Algebra of low-rank updates: sums, inner products, distances and exact recompression of
// ΔW = Σ_b B_b·A_b without ever forming ΔW where its factors are smaller. All in float64, on the
// device of the inputs, in the order given: the same input gives the same bits.
//
// Shape legend: O out, I in, R stacked rank, Q number of singular values.

#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "common/adapters/adapter_state.h"

namespace weft {

/// [B_1 … B_K] and [A_1; …; A_K], at least one. B lies column-major, as a QR wants it.
[[nodiscard]] LowRank SideBySide(std::span<const LowRank> blocks);

/// Σ_b B_b·A_b of one site. Blocks are kept side by side until their ranks add up to min(out, in);
/// from then on the dense sum is smaller, and is accumulated block by block. One thread.
class LowRankSum {
 public:
  LowRankSum() = default;
  LowRankSum(int64_t out, int64_t in) : out_(out), in_(in) {}

  /// Adds coefficient · B·A; the coefficient goes into B. Factors of any precision.
  void Add(const LowRank& factors, double coefficient = 1);
  /// Adds a matrix [out×in]; the sum is dense from then on.
  void AddMatrix(const at::Tensor& matrix_OI);
  /// Adds coefficient · the other sum.
  void Add(const LowRankSum& other, double coefficient = 1);

  [[nodiscard]] int64_t out() const { return out_; }
  [[nodiscard]] int64_t in() const { return in_; }
  [[nodiscard]] bool dense() const { return dense_OI_.defined(); }
  /// Ranks of all blocks added up; min(out, in) once dense.
  [[nodiscard]] int64_t rank() const;
  /// [B_1 … B_K] and [A_1; …; A_K]. Not for a dense sum.
  [[nodiscard]] LowRank Stack() const;
  /// The sum as a matrix [out×in]; forms it if it is not dense yet.
  [[nodiscard]] at::Tensor Matrix() const;

 private:
  int64_t out_ = 0;
  int64_t in_ = 0;
  int64_t rank_ = 0;
  mutable std::vector<LowRank> blocks_;  // laid side by side when they are first asked for
  at::Tensor dense_OI_;
};

/// Orthonormal coordinates in which several sums of one site are small matrices with the same inner
/// products: C_i = (Q_Bᵀ B_i)(A_i Q_A), the Q from QR of all factors side by side. Differences of
/// nearly equal sums keep their digits there, which Gram differences ‖X‖² + ‖Y‖² − 2⟨X, Y⟩ lose.
[[nodiscard]] std::vector<at::Tensor> Cores(std::span<const LowRankSum* const> sums);

[[nodiscard]] double FrobeniusNorm(const LowRankSum& sum);
/// ‖got − wanted‖_F / ‖wanted‖_F; 0 if both are zero.
[[nodiscard]] double RelativeDistance(const LowRankSum& got, const LowRankSum& wanted);
/// ‖B·A‖_F² = Σ (BᵀB) ∘ (AAᵀ): cheaper than FrobeniusNorm, exact to 1e-16·‖B‖²‖A‖².
[[nodiscard]] double GramSquare(const LowRank& factors);
[[nodiscard]] double GramSquare(const LowRankSum& sum);
/// x − y as factors side by side. Of equal shapes as [B_x − B_y | B_y]·[A_x; A_x − A_y], whose Gram
/// matrix keeps the digits of a small difference; else as [B_x | −B_y]·[A_x; A_y].
[[nodiscard]] LowRank Difference(const LowRank& x, const LowRank& y);
/// ⟨x, y⟩ = Σ (B_xᵀ B_y) ∘ (A_x A_yᵀ).
[[nodiscard]] double InnerProduct(const LowRank& x, const LowRankSum& y);

/// Singular values of B·A, descending, min(rank, out, in) of them, from the R×R Gram matrices of
/// the factors: σ below 1e-8·σ_1 is noise. For a few ranks a hundred times cheaper than Recompress.
[[nodiscard]] at::Tensor Spectrum(const LowRank& factors);

struct IdealDistance {
  double square = 0;        // ‖published − ideal‖_F²
  double ideal_square = 0;  // ‖ideal‖_F²
};
/// How far a rule that is not exact stays from the ideal mean. Up to kExactIdealRank stacked ranks
/// from Gram matrices (exact to 1e-16·‖ideal‖²); beyond, where those would cost more than the whole
/// merge, both squares are estimated from the same kIdealProbes random sign vectors, drawn from
/// `label` (Hutchinson 1990: unbiased, relative deviation of one site's square at most
/// √(2 / kIdealProbes), of the sum over many sites far less).
inline constexpr int64_t kExactIdealRank = 64;
inline constexpr int64_t kIdealProbes = 32;
[[nodiscard]] IdealDistance DistanceToIdeal(const LowRank& published, const LowRankSum& ideal,
                                            std::string_view label);
/// The estimate, where the ideal's images of the probes (SignProbes) are at hand: probes [P×I],
/// images [P×O].
[[nodiscard]] IdealDistance DistanceToImages(const LowRank& published, const at::Tensor& probes_PI,
                                             const at::Tensor& images_PO);

/// Orthonormal bases of a stack [B_1 … B_K], [A_1; …; A_K], in which it is a small matrix, and that
/// matrix in singular form: B·A = Q_B·(R_B·R_Aᵀ)·Q_Aᵀ = Q_B·(u·S·vᵀ)·Q_Aᵀ.
struct Frame {
  at::Tensor Q_B_OQ;
  at::Tensor Q_A_IQ;
  at::Tensor R_B_QR;  // a column for each rank of the stack, in its order
  at::Tensor R_A_QR;
  at::Tensor u_QQ;
  at::Tensor S_Q;
  at::Tensor v_QQ;

  /// Factors of the sum as the decomposition gives it.
  [[nodiscard]] LowRank Factors() const;
  /// Xᵀ·(the sum as the decomposition gives it)ᵀ of rows X [P×I]: [P×O].
  [[nodiscard]] at::Tensor Images(const at::Tensor& X_PI) const;
};

/// A sum brought to singular form, cut to the rank asked for.
struct Recompressed {
  at::Tensor U_OQ;             // orthonormal columns; the largest entry of each is positive
  at::Tensor S_Q;              // descending
  at::Tensor V_IQ;             // orthonormal columns
  at::Tensor spectrum;         // all singular values, those cut away too
  std::optional<Frame> frame;  // of the sum's stack; none for a dense sum
  LowRank dense = {};          // of a dense sum, BeforeCutting

  /// Factors of the whole sum as the decomposition gives it.
  [[nodiscard]] LowRank BeforeCutting() const;
};

/// `kIdealProbes` rows of signs [probes×in], drawn from `label` and the layer's width alone.
[[nodiscard]] at::Tensor SignProbes(int64_t in, std::string_view label, at::Device device);
/// X·sumᵀ of rows X [P×in]: [P×out]. Rows, for products of few columns are several times slower.
[[nodiscard]] at::Tensor Images(const LowRankSum& sum, const at::Tensor& X_PI);

/// Singular values and leading singular vectors of a sum, from QR of both stacks and the SVD of the
/// R×R core, or from the dense matrix where that is smaller. `choose_rank` sees the spectrum.
[[nodiscard]] Recompressed Recompress(
    const LowRankSum& sum, const std::function<int64_t(const at::Tensor& spectrum)>& choose_rank);

/// Q·(Qᵀ·sum) with Q an orthonormal basis of sum·Ω (Halko et al. 2011; FedASK, 2507.09990): the sum
/// itself where its rank is at most the sketch's, near its best approximation where Ω has some
/// columns more than wanted. Needs the sum only through two products that are linear in it.
[[nodiscard]] LowRank Sketched(const LowRankSum& sum, const at::Tensor& omega_IL);

/// Σ_{i≥rank} σ_i²: what cutting to that rank takes away.
[[nodiscard]] double EnergyFrom(const at::Tensor& spectrum, int64_t rank);
/// exp of the entropy of σ²/Σσ²; 0 for a zero spectrum.
[[nodiscard]] double EffectiveRank(const at::Tensor& spectrum);
/// The least rank that keeps this share of Σσ²; at least 1.
[[nodiscard]] int64_t RankOfEnergy(const at::Tensor& spectrum, double share);

/// `count` orthonormal rows [count×in], orthogonal to the rows of A: directions for slots that have
/// none. They depend on A and `label` alone. rows(A) + count must be at most in.
[[nodiscard]] at::Tensor CompletingRows(const at::Tensor& A_RI, int64_t count,
                                        std::string_view label);

}  // namespace weft
