#include "aggregator/algebra.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "common/adapters/singular_form.h"
#include "common/base/check.h"
#include "common/base/random.h"

// Shape legend: O out, I in, R stacked rank, Q number of singular values.

namespace weft {
namespace {

// Above this size a dense SVD takes minutes; the eigenvectors of the smaller Gram matrix take
// seconds. Squaring the condition is harmless here: vectors of σ < 1e-8·σ_1 carry nothing that
// float32 keeps.
constexpr int64_t kDirectSvdMax = 1024;

// An orthonormal basis of the columns' span.
at::Tensor Basis(const at::Tensor& columns) {
  return std::get<0>(at::linalg_qr(columns, "reduced"));
}

// Coordinates of the columns in an orthonormal basis of their span; the columns themselves where
// there are as many as rows.
at::Tensor Coordinates(const at::Tensor& columns) {
  if (columns.size(1) >= columns.size(0)) return columns;
  return std::get<1>(at::linalg_qr(columns, "r"));
}

Recompressed FromStack(const LowRank& stack,
                       const std::function<int64_t(const at::Tensor&)>& choose_rank) {
  Frame frame;
  std::tie(frame.Q_B_OQ, frame.R_B_QR) = at::linalg_qr(stack.B_OR, "reduced");
  std::tie(frame.Q_A_IQ, frame.R_A_QR) = at::linalg_qr(stack.A_RI.t(), "reduced");
  at::Tensor vh_QQ;
  std::tie(frame.u_QQ, frame.S_Q, vh_QQ) =
      at::linalg_svd(at::matmul(frame.R_B_QR, frame.R_A_QR.t()), /*full_matrices=*/false);
  frame.v_QQ = vh_QQ.t();
  const int64_t rank = std::clamp<int64_t>(choose_rank(frame.S_Q), 0, frame.S_Q.size(0));
  Recompressed cut;
  cut.U_OQ = at::matmul(frame.u_QQ.narrow(1, 0, rank).t(), frame.Q_B_OQ.t()).t();
  cut.V_IQ = at::matmul(frame.v_QQ.narrow(1, 0, rank).t(), frame.Q_A_IQ.t()).t();
  FixSigns(cut.U_OQ, cut.V_IQ);
  cut.S_Q = frame.S_Q.narrow(0, 0, rank).contiguous();
  cut.spectrum = frame.S_Q;
  cut.frame = std::move(frame);
  return cut;
}

Recompressed FromSmallMatrix(const at::Tensor& M_OI,
                             const std::function<int64_t(const at::Tensor&)>& choose_rank) {
  auto [U, S, Vh] = at::linalg_svd(M_OI, /*full_matrices=*/false);
  at::Tensor V = Vh.t();
  FixSigns(U, V);
  const int64_t rank = std::clamp<int64_t>(choose_rank(S), 0, S.size(0));
  return {U.narrow(1, 0, rank).contiguous(),
          S.narrow(0, 0, rank).contiguous(),
          V.narrow(1, 0, rank).contiguous(),
          S,
          std::nullopt,
          {V.t(), U * S}};
}

Recompressed FromMatrix(const at::Tensor& M_OI,
                        const std::function<int64_t(const at::Tensor&)>& choose_rank) {
  const int64_t out = M_OI.size(0);
  const int64_t in = M_OI.size(1);
  if (std::min(out, in) <= kDirectSvdMax) return FromSmallMatrix(M_OI, choose_rank);
  const bool wide = out <= in;
  const at::Tensor gram = wide ? at::matmul(M_OI, M_OI.t()) : at::matmul(M_OI.t(), M_OI);
  auto [eigenvalues, eigenvectors] = at::linalg_eigh(gram);
  const at::Tensor spectrum = eigenvalues.flip(0).clamp_min(0).sqrt();
  const at::Tensor basis = eigenvectors.flip(1);
  const auto projected = [&](const at::Tensor& vectors) {
    return wide ? LowRank{at::matmul(vectors.t(), M_OI), vectors}
                : LowRank{vectors.t(), at::matmul(M_OI, vectors)};
  };
  const int64_t rank = std::clamp<int64_t>(choose_rank(spectrum), 0, spectrum.size(0));
  Recompressed top = FromStack(projected(basis.narrow(1, 0, rank).contiguous()),
                               [rank](const at::Tensor&) { return rank; });
  top.spectrum = spectrum;
  top.frame.reset();  // it is that of the leading part
  top.dense = projected(basis.contiguous());
  return top;
}

}  // namespace

LowRank SideBySide(std::span<const LowRank> blocks) {
  std::vector<at::Tensor> A_blocks;
  std::vector<at::Tensor> B_blocks;
  for (const LowRank& block : blocks) {
    A_blocks.push_back(block.A_RI);
    B_blocks.push_back(block.B_OR.t());
  }
  return {at::cat(A_blocks, 0), at::cat(B_blocks, 0).t()};
}

void LowRankSum::Add(const LowRank& factors, double coefficient) {
  WEFT_CHECK(factors.B_OR.size(0) == out_ && factors.A_RI.size(1) == in_ &&
                 factors.B_OR.size(1) == factors.A_RI.size(0),
             "B [", factors.B_OR.size(0), "×", factors.B_OR.size(1), "] A [", factors.A_RI.size(0),
             "×", factors.A_RI.size(1), "] of a site ", out_, "×", in_);
  const at::Tensor A_RI = factors.A_RI.to(at::kDouble);
  at::Tensor B_OR = factors.B_OR.to(at::kDouble);
  if (coefficient != 1) B_OR = B_OR * coefficient;
  rank_ += A_RI.size(0);
  if (!dense() && rank_ < std::min(out_, in_)) {
    blocks_.push_back({A_RI, B_OR});
    return;
  }
  if (!dense()) {
    dense_OI_ = Matrix();
    blocks_.clear();
  }
  // A fresh tensor, not in place: copies of this sum share the old one.
  dense_OI_ = at::addmm(dense_OI_, B_OR, A_RI);
}

void LowRankSum::AddMatrix(const at::Tensor& matrix_OI) {
  WEFT_CHECK(matrix_OI.size(0) == out_ && matrix_OI.size(1) == in_, "a matrix ", matrix_OI.size(0),
             "×", matrix_OI.size(1), " of a site ", out_, "×", in_);
  dense_OI_ = rank_ == 0 ? matrix_OI : Matrix() + matrix_OI;
  blocks_.clear();
  rank_ += std::min(out_, in_);
}

void LowRankSum::Add(const LowRankSum& other, double coefficient) {
  for (const LowRank& block : other.blocks_) Add(block, coefficient);
  if (!other.dense()) return;
  dense_OI_ = at::add(Matrix(), other.dense_OI_, coefficient);
  blocks_.clear();
  rank_ += other.rank_;
}

int64_t LowRankSum::rank() const { return dense() ? std::min(out_, in_) : rank_; }

LowRank LowRankSum::Stack() const {
  WEFT_CHECK(!dense(), "a dense sum has no stack");
  if (blocks_.empty()) {
    const auto options = at::TensorOptions().dtype(at::kDouble);
    return {at::zeros({0, in_}, options), at::zeros({out_, 0}, options)};
  }
  if (blocks_.size() > 1) blocks_ = {SideBySide(blocks_)};  // once, for all who ask
  return blocks_.front();
}

at::Tensor LowRankSum::Matrix() const {
  if (dense()) return dense_OI_;
  const LowRank stack = Stack();
  return at::matmul(stack.B_OR, stack.A_RI);
}

std::vector<at::Tensor> Cores(std::span<const LowRankSum* const> sums) {
  std::vector<at::Tensor> cores;
  if (std::any_of(sums.begin(), sums.end(), [](const LowRankSum* sum) { return sum->dense(); })) {
    for (const LowRankSum* sum : sums) cores.push_back(sum->Matrix());
    return cores;
  }
  std::vector<at::Tensor> A_blocks;
  std::vector<at::Tensor> B_blocks;
  for (const LowRankSum* sum : sums) {
    const LowRank stack = sum->Stack();
    A_blocks.push_back(stack.A_RI.t());
    B_blocks.push_back(stack.B_OR);
  }
  const at::Tensor B_coordinates = Coordinates(at::cat(B_blocks, 1));
  const at::Tensor A_coordinates = Coordinates(at::cat(A_blocks, 1));
  int64_t at_column = 0;
  for (const LowRankSum* sum : sums) {
    const int64_t rank = sum->rank();
    cores.push_back(at::matmul(B_coordinates.narrow(1, at_column, rank),
                               A_coordinates.narrow(1, at_column, rank).t()));
    at_column += rank;
  }
  return cores;
}

double FrobeniusNorm(const LowRankSum& sum) {
  const LowRankSum* const sums[] = {&sum};
  return Cores(sums)[0].norm().item<double>();
}

double RelativeDistance(const LowRankSum& got, const LowRankSum& wanted) {
  const LowRankSum* const sums[] = {&got, &wanted};
  const std::vector<at::Tensor> cores = Cores(sums);
  const double distance = (cores[0] - cores[1]).norm().item<double>();
  return distance == 0 ? 0 : distance / cores[1].norm().item<double>();
}

double GramSquare(const LowRank& factors) {
  const at::Tensor gram =
      at::matmul(factors.B_OR.t(), factors.B_OR) * at::matmul(factors.A_RI, factors.A_RI.t());
  return std::max(gram.sum().item<double>(), 0.0);
}

double GramSquare(const LowRankSum& sum) {
  return sum.dense() ? sum.Matrix().square().sum().item<double>() : GramSquare(sum.Stack());
}

LowRank Difference(const LowRank& x, const LowRank& y) {
  if (x.A_RI.sizes() != y.A_RI.sizes()) {
    return {at::cat({x.A_RI, y.A_RI}, 0), at::cat({x.B_OR, -y.B_OR}, 1)};
  }
  return {at::cat({x.A_RI, x.A_RI - y.A_RI}, 0), at::cat({x.B_OR - y.B_OR, y.B_OR}, 1)};
}

double InnerProduct(const LowRank& x, const LowRankSum& y) {
  if (y.dense()) {
    return (at::matmul(x.B_OR.t(), y.Matrix()) * x.A_RI).sum().item<double>();
  }
  const LowRank stack = y.Stack();
  return (at::matmul(x.B_OR.t(), stack.B_OR) * at::matmul(x.A_RI, stack.A_RI.t()))
      .sum()
      .item<double>();
}

at::Tensor Spectrum(const LowRank& factors) {
  const int64_t count =
      std::min({factors.A_RI.size(0), factors.A_RI.size(1), factors.B_OR.size(0)});
  // σ² are the eigenvalues of √G_A·G_B·√G_A, of which the largest `count` can differ from zero.
  auto [values, vectors] = at::linalg_eigh(at::matmul(factors.A_RI, factors.A_RI.t()));
  const at::Tensor root = vectors * values.clamp_min(0).sqrt();
  const at::Tensor gram = at::matmul(factors.B_OR.t(), factors.B_OR);
  const at::Tensor core = at::matmul(root.t(), at::matmul(gram, root));
  return at::linalg_eigvalsh(core).flip(0).narrow(0, 0, count).clamp_min(0).sqrt();
}

at::Tensor SignProbes(int64_t in, std::string_view label, at::Device device) {
  at::Tensor signs_PI = at::empty({kIdealProbes, in}, at::kDouble);
  RandomStream stream = RandomStream::Derive(0, {"ideal-probes", label});
  auto* values = signs_PI.mutable_data_ptr<double>();
  uint32_t bits = 0;
  for (int64_t i = 0; i < signs_PI.numel(); ++i, bits >>= 1) {
    if (i % 32 == 0) bits = stream.NextU32();
    values[i] = (bits & 1) != 0 ? -1 : 1;
  }
  return signs_PI.to(device);
}

at::Tensor Images(const LowRankSum& sum, const at::Tensor& X_PI) {
  if (sum.dense()) return at::matmul(X_PI, sum.Matrix().t());
  const LowRank stack = sum.Stack();
  return at::matmul(at::matmul(X_PI, stack.A_RI.t()), stack.B_OR.t());
}

at::Tensor Frame::Images(const at::Tensor& X_PI) const {
  const at::Tensor inner_PQ = at::matmul(at::matmul(X_PI, Q_A_IQ), v_QQ) * S_Q;
  return at::matmul(at::matmul(inner_PQ, u_QQ.t()), Q_B_OQ.t());
}

LowRank Frame::Factors() const {
  const at::Tensor U = at::matmul(Q_B_OQ, u_QQ);
  return {at::matmul(v_QQ.t(), Q_A_IQ.t()), U * S_Q};
}

LowRank Recompressed::BeforeCutting() const { return frame ? frame->Factors() : dense; }

IdealDistance DistanceToIdeal(const LowRank& published, const LowRankSum& ideal,
                              std::string_view label) {
  if (ideal.dense() || ideal.rank() <= kExactIdealRank) {
    const double ideal_square = GramSquare(ideal);
    const double square = GramSquare(published) - 2 * InnerProduct(published, ideal) + ideal_square;
    return {std::max(square, 0.0), ideal_square};
  }
  const at::Tensor probes_PI = SignProbes(ideal.in(), label, published.A_RI.device());
  return DistanceToImages(published, probes_PI, Images(ideal, probes_PI));
}

IdealDistance DistanceToImages(const LowRank& published, const at::Tensor& probes_PI,
                               const at::Tensor& images_PO) {
  const at::Tensor error_PO =
      images_PO - at::matmul(at::matmul(probes_PI, published.A_RI.t()), published.B_OR.t());
  const auto probes = static_cast<double>(probes_PI.size(0));
  return {error_PO.square().sum().item<double>() / probes,
          images_PO.square().sum().item<double>() / probes};
}

Recompressed Recompress(const LowRankSum& sum,
                        const std::function<int64_t(const at::Tensor&)>& choose_rank) {
  return sum.dense() ? FromMatrix(sum.Matrix(), choose_rank) : FromStack(sum.Stack(), choose_rank);
}

LowRank Sketched(const LowRankSum& sum, const at::Tensor& omega_IL) {
  if (sum.dense()) {
    const at::Tensor Q_OL = Basis(at::matmul(sum.Matrix(), omega_IL));
    return {at::matmul(Q_OL.t(), sum.Matrix()), Q_OL};
  }
  const LowRank stack = sum.Stack();
  const at::Tensor Q_OL = Basis(at::matmul(stack.B_OR, at::matmul(stack.A_RI, omega_IL)));
  return {at::matmul(at::matmul(Q_OL.t(), stack.B_OR), stack.A_RI), Q_OL};
}

double EnergyFrom(const at::Tensor& spectrum, int64_t rank) {
  if (rank >= spectrum.size(0)) return 0;
  return spectrum.narrow(0, rank, spectrum.size(0) - rank).square().sum().item<double>();
}

double EffectiveRank(const at::Tensor& spectrum) {
  const at::Tensor energy = spectrum.square();
  const double total = energy.sum().item<double>();
  if (total == 0) return 0;
  const at::Tensor share = energy / total;
  return std::exp(-at::xlogy(share, share).sum().item<double>());
}

int64_t RankOfEnergy(const at::Tensor& spectrum, double share) {
  const at::Tensor sums = spectrum.square().cumsum(0).to(at::kCPU);
  const int64_t count = sums.size(0);
  if (count == 0) return 1;
  const double wanted = share * sums[count - 1].item<double>();
  int64_t rank = 1;
  while (rank < count && sums[rank - 1].item<double>() < wanted) ++rank;
  return rank;
}

at::Tensor CompletingRows(const at::Tensor& A_RI, int64_t count, std::string_view label) {
  const int64_t in = A_RI.size(1);
  WEFT_CHECK(A_RI.size(0) + count <= in, A_RI.size(0), " rows and ", count, " more in ", in);
  at::Tensor fresh = at::empty({in, count}, at::kDouble);
  RandomStream stream = RandomStream::Derive(0, {"completing-rows", label});
  double* values = fresh.mutable_data_ptr<double>();
  for (int64_t i = 0; i < fresh.numel(); ++i) values[i] = stream.Normal();
  fresh = fresh.to(A_RI.device());
  if (A_RI.size(0) > 0) {
    const at::Tensor basis = Basis(A_RI.to(at::kDouble).t().contiguous());
    // Twice: once leaves what rounding let through.
    for (int pass = 0; pass < 2; ++pass) {
      fresh = fresh - at::matmul(basis, at::matmul(basis.t(), fresh));
    }
  }
  return Basis(fresh).t().contiguous();
}

}  // namespace weft
