#pragma once
// What Laplace-LoRA needs of a model and data: the sums of a LoRA adapter's matrices over rows with
// a class, and the gradients of log-probabilities for predictions. Stateless.
//
// Shape legend: L rows, C classes, O out, I in of a matrix.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"
#include "common/evaluate/class_rows.h"
#include "common/laplace/statistics.h"
#include "common/runtime/executor.h"

namespace weft {

struct CurvatureSettings {
  std::vector<int32_t> answers = {};  // see PackClassRows
  int64_t batch_rows = 8;
  int64_t exact_classes_max = 8;  // beyond: labels drawn from the model
  uint64_t seed = 0;              // of those draws
  int64_t root_from = 2048;       // sides from here on are kept as roots …
  int64_t root_rank = 16;         // … of so many columns
};

/// A LoRA adapter on a model, with adapters beside it that stay as they are.
struct MeasuredAdapter {
  const Model& model;
  const AdapterState& adapter;
  const AdapterBinding& beside;
  std::string hash;  // of the adapter, into the statistics
};

/// Names of the matrices in their order: "<site>.A" and "<site>.B" of each site; their values
/// [O×I], unscaled, as the adapter holds them.
[[nodiscard]] std::vector<std::string> MatrixNames(const AdapterState& adapter);
[[nodiscard]] std::vector<at::Tensor> MatrixValues(const AdapterState& adapter);

/// Statistics over the rows. The exact softmax Fisher by one backward pass a class, weighted by its
/// probability, up to exact_classes_max classes; else one pass with labels drawn from the model
/// (a row's draw depends on seed and its tokens alone). Dropout is off. kInvalidArgument where the
/// adapter is none of LoRA's or rows have no class; kFailedPrecondition naming a site whose product
/// the backward pass does not reach (BERT's pooler); kCancelled when the control says so.
[[nodiscard]] Result<LaplaceStatistics> MeasureCurvature(const MeasuredAdapter& measured,
                                                         std::span<const TokenRow> rows,
                                                         const CurvatureSettings& settings,
                                                         JobControl& control);

/// log p [L×C] and its derivatives ∂log p/∂W [L×C×O×I] of each matrix, in float64: for
/// LogitCovariance and MonteCarloProbabilities in place of logits, from which they differ by a
/// shift of all classes that softmax does not see. Memory for L·C copies of the adapter.
struct LogProbabilities {
  at::Tensor log_p_LC;
  std::vector<at::Tensor> jacobians_LCOI;
};
[[nodiscard]] Result<LogProbabilities> DifferentiateClasses(const MeasuredAdapter& measured,
                                                            std::span<const TokenRow> rows,
                                                            std::span<const int32_t> answers);

}  // namespace weft
