#pragma once
// A small random Laplace problem whose dense matrices tests can form.
//
// Shape legend: N rows, O out, I in.

#include <string>
#include <vector>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/laplace/posterior.h"

namespace weft::testing {

/// Standard normal float64 values that depend on the label alone.
inline at::Tensor RandomTensor(std::string_view label, at::IntArrayRef shape) {
  RandomStream stream = RandomStream::Derive(11, {"laplace-test", label});
  at::Tensor tensor = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    tensor.mutable_data_ptr<double>()[i] = stream.Normal();
  }
  return tensor;
}

/// Sides of a matrix, and the columns of their roots; 0: whole.
struct Sides {
  int64_t out = 0;
  int64_t in = 0;
  int64_t out_root = 0;
  int64_t in_root = 0;
};

inline Gram EmptyGram(int64_t dim, int64_t root) {
  return root == 0 ? Gram::Whole(dim) : Gram::Root(dim, root);
}

/// Statistics of random rows, `rows_each` of them for each example.
inline LaplaceStatistics RandomStatistics(const std::vector<Sides>& sides, uint64_t examples,
                                          uint64_t rows_each = 1, std::string_view label = "") {
  LaplaceStatistics statistics{"hash", examples, 1, -3.5 * static_cast<double>(examples), {}};
  const auto rows = static_cast<int64_t>(examples * rows_each);
  for (size_t m = 0; m < sides.size(); ++m) {
    MatrixStatistics matrix{Str("m", m), examples * rows_each,
                            EmptyGram(sides[m].in, sides[m].in_root),
                            EmptyGram(sides[m].out, sides[m].out_root)};
    matrix.input.Add(RandomTensor(Str(label, "a", m), {rows, sides[m].in}));
    matrix.output.Add(RandomTensor(Str(label, "g", m), {rows, sides[m].out}));
    statistics.matrices.push_back(std::move(matrix));
  }
  return statistics;
}

inline std::vector<at::Tensor> RandomTheta(const std::vector<Sides>& sides) {
  std::vector<at::Tensor> theta;
  for (size_t m = 0; m < sides.size(); ++m) {
    theta.push_back(0.5 * RandomTensor(Str("theta", m), {sides[m].out, sides[m].in}));
  }
  return theta;
}

/// H of one matrix [O·I × O·I], from the sums themselves.
inline at::Tensor DenseCurvature(const LaplaceStatistics& statistics, size_t m,
                                 Normalization normalization) {
  const ScaledFactors scaled = Scale(statistics, statistics.matrices[m], normalization);
  return at::kron(scaled.output.Matrix(), scaled.input.Matrix());
}

/// ‖got − wanted‖ / ‖wanted‖.
inline double RelativeError(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).norm() / wanted.norm()).item<double>();
}

}  // namespace weft::testing
