#include "common/evaluate/measure_curvature.h"

#include <algorithm>
#include <unordered_map>

#include "common/adapters/adapter.h"
#include "common/base/bytes.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/data/batch.h"
#include "common/model/bind_dense.h"
#include "common/model/projection.h"
#include "common/tensor/guard.h"

// Shape legend: N tokens, L rows, C classes, R rank, O out, I in of a matrix.

namespace weft {
namespace {

/// Where a site's matrices stand in the statistics.
struct Place {
  int64_t first = -1;  // index of its A, that of B follows; −1: not adapted
  double scaling = 1;
};

/// The adapter bound so that its matrices take gradients, and where they stand by model site.
struct Bound {
  AdapterBinding adapters;
  std::vector<Place> places;
};

Result<Bound> BindForGradients(const MeasuredAdapter& measured) {
  if (measured.adapter.spec.method != "lora") {
    return InvalidArgument(Str("[curvature] the adapter's method is \"",
                               measured.adapter.spec.method,
                               "\"; a Laplace posterior is over lora's matrices"));
  }
  AdapterState leaves = measured.adapter;
  for (SiteState& site : leaves.sites) {
    for (NamedTensor& tensor : site.tensors) {
      tensor.value = tensor.value.detach().clone().set_requires_grad(true);
    }
  }
  Bound bound;
  {
    const at::AutoGradMode with_grad(true);
    WEFT_TRY_ASSIGN(AppliedAdapter applied, Apply(measured.model, leaves));
    bound.adapters.push_back(std::move(applied));
  }
  bound.adapters.insert(bound.adapters.end(), measured.beside.begin(), measured.beside.end());
  WEFT_TRY(CheckHead(measured.model, bound.adapters));
  std::unordered_map<std::string, size_t> order;  // looked up only
  for (size_t i = 0; i < leaves.sites.size(); ++i) order.emplace(leaves.sites[i].site.path, i);
  for (const LinearSite& site : measured.model.sites()) {
    const auto found = order.find(site.path);
    Place place;
    if (found != order.end()) {
      place = {static_cast<int64_t>(2 * found->second), ScalingFor(leaves.spec, site.path)};
    }
    bound.places.push_back(place);
  }
  return bound;
}

/// Adds what a backward pass shows to statistics; each token's gradient times its weight.
class Collector final : public MatrixObserver {
 public:
  Collector(std::span<const Place> places, LaplaceStatistics& sums)
      : places_(places), sums_(sums) {}

  void Begin(at::Tensor weights_N1, bool with_inputs) {
    weights_N1_ = std::move(weights_N1);
    with_inputs_ = with_inputs;
  }
  void OnA(size_t site, const at::Tensor& x_NI, const at::Tensor& dz_NR) override {
    Add(site, 0, x_NI, dz_NR, 1);
  }
  void OnB(size_t site, const at::Tensor& z_NR, const at::Tensor& dy_NO) override {
    Add(site, 1, z_NR, dy_NO, places_[site].scaling);
  }

 private:
  void Add(size_t site, int64_t which, const at::Tensor& input_NI, const at::Tensor& gradient_NO,
           double scaling) {
    if (places_[site].first < 0) return;  // of an adapter beside
    MatrixStatistics& sums = sums_.matrices[static_cast<size_t>(places_[site].first + which)];
    if (with_inputs_) {
      sums.input.Add(input_NI);
      sums.rows += static_cast<uint64_t>(input_NI.size(0));
    }
    sums.output.Add(gradient_NO.to(at::kDouble) * (weights_N1_ * scaling));
  }

  std::span<const Place> places_;
  LaplaceStatistics& sums_;
  at::Tensor weights_N1_;
  bool with_inputs_ = false;
};

/// Keeps the gradient of each row's own loss: Σ_t g_t a_tᵀ over its tokens [L×O×I].
class RowGradients final : public MatrixObserver {
 public:
  RowGradients(std::span<const Place> places, std::span<const int64_t> row_starts, size_t matrices)
      : places_(places), row_starts_(row_starts), gradients_(matrices) {}

  [[nodiscard]] const std::vector<at::Tensor>& gradients_LOI() const { return gradients_; }
  void OnA(size_t site, const at::Tensor& x_NI, const at::Tensor& dz_NR) override {
    Keep(site, 0, x_NI, dz_NR, 1);
  }
  void OnB(size_t site, const at::Tensor& z_NR, const at::Tensor& dy_NO) override {
    Keep(site, 1, z_NR, dy_NO, places_[site].scaling);
  }

 private:
  void Keep(size_t site, int64_t which, const at::Tensor& input_NI, const at::Tensor& gradient_NO,
            double scaling) {
    if (places_[site].first < 0) return;
    const at::Tensor input = input_NI.to(at::kDouble);
    const at::Tensor gradient_ON = (gradient_NO.to(at::kDouble) * scaling).t();
    std::vector<at::Tensor> by_row;
    for (size_t i = 0; i + 1 < row_starts_.size(); ++i) {
      const int64_t length = row_starts_[i + 1] - row_starts_[i];
      by_row.push_back(at::mm(gradient_ON.narrow(1, row_starts_[i], length),
                              input.narrow(0, row_starts_[i], length)));
    }
    gradients_[static_cast<size_t>(places_[site].first + which)] = at::stack(by_row);
  }

  std::span<const Place> places_;
  std::span<const int64_t> row_starts_;
  std::vector<at::Tensor> gradients_;
};

/// −log p of the given class of each row, backward, watched.
void Backward(const Model& model, const Bound& bound, const ClassBatch& batch,
              const at::Tensor& classes_L, MatrixObserver& observer) {
  const at::AutoGradMode with_grad(true);
  PackedBatch packed = batch.packed;
  packed.labels_L = classes_L;
  model.LossSum(packed, bound.adapters, {.answers_V = batch.answers_C, .observer = &observer})
      .backward();
}

// A row's draw is the same on whichever client and in whichever place it lies, so that the sums of
// clients are those of all rows together.
at::Tensor DrawClasses(const at::Tensor& log_p_LC, uint64_t seed,
                       std::span<const TokenRow* const> rows) {
  std::vector<double> uniform;
  for (const TokenRow* row : rows) {
    const std::string_view tokens = AsText(std::as_bytes(std::span(row->ids)));
    uniform.push_back(RandomStream::Derive(seed, {"curvature-label", tokens}).Uniform());
  }
  const at::Tensor cumulative_LC = log_p_LC.exp().cumsum(1);
  const at::Tensor uniform_L1 = at::tensor(uniform, at::kDouble).to(log_p_LC.device()).unsqueeze(1);
  return (uniform_L1 > cumulative_LC).sum(1).clamp_max(log_p_LC.size(1) - 1);
}

LaplaceStatistics EmptyStatistics(const MeasuredAdapter& measured,
                                  const CurvatureSettings& settings) {
  LaplaceStatistics sums;
  sums.adapter_hash = measured.hash;
  const std::vector<std::string> names = MatrixNames(measured.adapter);
  const std::vector<at::Tensor> values = MatrixValues(measured.adapter);
  const auto side = [&](int64_t dim) {
    return Gram::ForSide(dim, settings.root_from, settings.root_rank);
  };
  for (size_t m = 0; m < names.size(); ++m) {
    sums.matrices.push_back({names[m], 0, side(values[m].size(1)), side(values[m].size(0))});
  }
  return sums;
}

/// One batch into the sums.
Status MeasureBatch(const MeasuredAdapter& measured, const Bound& bound,
                    std::span<const TokenRow* const> rows, const CurvatureSettings& settings,
                    LaplaceStatistics& sums) {
  WEFT_TRY_ASSIGN(const ClassBatch batch, PackClassRows(measured.model, rows, settings.answers));
  WEFT_TRY_ASSIGN(const at::Tensor log_p_LC,
                  ClassLogProbabilities(measured.model, bound.adapters, batch));
  const at::Tensor& labels_L = batch.packed.labels_L;
  const int64_t classes = log_p_LC.size(1);
  Collector collector(bound.places, sums);
  if (classes > settings.exact_classes_max) {
    collector.Begin(at::ones({batch.row_of_N.size(0), 1}, log_p_LC.options()), true);
    Backward(measured.model, bound, batch, DrawClasses(log_p_LC, settings.seed, rows), collector);
  }
  for (int64_t c = 0; classes <= settings.exact_classes_max && c < classes; ++c) {
    // Rows do not meet, so a row's weight √p_c may be put on its tokens' gradients.
    const at::Tensor weights_L = (log_p_LC.select(1, c) / 2).exp();
    collector.Begin(weights_L.index_select(0, batch.row_of_N).unsqueeze(1), c == 0);
    Backward(measured.model, bound, batch, at::full_like(labels_L, c), collector);
  }
  sums.log_likelihood += log_p_LC.gather(1, labels_L.unsqueeze(1)).sum().item<double>();
  sums.examples += rows.size();
  sums.batches += 1;
  return OkStatus();
}

Status CheckAllSeen(const LaplaceStatistics& sums) {
  for (const MatrixStatistics& matrix : sums.matrices) {
    if (matrix.rows == 0) {
      return FailedPrecondition(Str("[curvature] matrix ", matrix.name,
                                    ": its layer is not part of the measured backward pass; leave "
                                    "it out of target-modules"));
    }
  }
  return OkStatus();
}

std::vector<const TokenRow*> Pointers(std::span<const TokenRow> rows) {
  std::vector<const TokenRow*> pointers;
  for (const TokenRow& row : rows) pointers.push_back(&row);
  return pointers;
}

}  // namespace

std::vector<std::string> MatrixNames(const AdapterState& adapter) {
  std::vector<std::string> names;
  for (const SiteState& site : adapter.sites) {
    names.push_back(site.site.path + ".A");
    names.push_back(site.site.path + ".B");
  }
  return names;
}

std::vector<at::Tensor> MatrixValues(const AdapterState& adapter) {
  std::vector<at::Tensor> values;
  for (const SiteState& site : adapter.sites) {
    values.push_back(site.Get("A").detach());
    values.push_back(site.Get("B").detach());
  }
  return values;
}

Result<LaplaceStatistics> MeasureCurvature(const MeasuredAdapter& measured,
                                           std::span<const TokenRow> rows,
                                           const CurvatureSettings& settings, JobControl& control) {
  if (settings.batch_rows < 1 || rows.empty()) {
    return InvalidArgument(Str("[curvature] ", rows.size(), " rows in batches of ",
                               settings.batch_rows, ", wanted at least one of each"));
  }
  WEFT_TRY_ASSIGN(const Bound bound, BindForGradients(measured));
  LaplaceStatistics sums = EmptyStatistics(measured, settings);
  const std::vector<const TokenRow*> pointers = Pointers(rows);
  for (const auto batch : MicroBatches(pointers, settings.batch_rows)) {
    if (control.cancelled) return Cancelled("[curvature] stopped on request");
    WEFT_TRY(Guarded("[curvature]",
                     [&] { return MeasureBatch(measured, bound, batch, settings, sums); }));
    WEFT_TRY(CheckAllSeen(sums));
    control.progress = static_cast<float>(sums.examples) / static_cast<float>(rows.size());
  }
  return sums;
}

Result<LogProbabilities> DifferentiateClasses(const MeasuredAdapter& measured,
                                              std::span<const TokenRow> rows,
                                              std::span<const int32_t> answers) {
  if (rows.empty()) return InvalidArgument("[curvature] no rows");
  WEFT_TRY_ASSIGN(const Bound bound, BindForGradients(measured));
  return Guarded("[curvature]", [&]() -> Result<LogProbabilities> {
    const std::vector<const TokenRow*> pointers = Pointers(rows);
    WEFT_TRY_ASSIGN(const ClassBatch batch, PackClassRows(measured.model, pointers, answers));
    LogProbabilities result;
    WEFT_TRY_ASSIGN(result.log_p_LC, ClassLogProbabilities(measured.model, bound.adapters, batch));
    const std::vector<std::string> names = MatrixNames(measured.adapter);
    std::vector<std::vector<at::Tensor>> by_matrix(names.size());
    for (int64_t c = 0; c < result.log_p_LC.size(1); ++c) {
      RowGradients observer(bound.places, batch.packed.row_starts, names.size());
      Backward(measured.model, bound, batch, at::full_like(batch.packed.labels_L, c), observer);
      for (size_t m = 0; m < names.size(); ++m) {
        const at::Tensor& own_LOI = observer.gradients_LOI()[m];
        if (!own_LOI.defined()) {
          return FailedPrecondition(
              Str("[curvature] matrix ", names[m], ": its layer is not part of the backward pass"));
        }
        by_matrix[m].push_back(-own_LOI);
      }
    }
    for (const std::vector<at::Tensor>& classes : by_matrix) {
      result.jacobians_LCOI.push_back(at::stack(classes, 1));
    }
    return result;
  });
}

}  // namespace weft
