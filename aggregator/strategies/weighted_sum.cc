#include "aggregator/strategies/weighted_sum.h"

#include <algorithm>
#include <span>
#include <utility>

#include "common/base/check.h"

// The inner loop is compiled for several generations of processors, the one at hand chooses when
// the program starts. No product is fused with its sum (CMakeLists.txt): all give the same bits.
#if defined(__x86_64__)
#define WEFT_FOR_THIS_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WEFT_FOR_THIS_PROCESSOR
#endif

namespace weft {
namespace {

constexpr int64_t kBlock = 16384;  // elements of the sum: 128 KiB, in a second-level cache
constexpr int64_t kHeldBytesMax = int64_t{16} << 20;
constexpr size_t kAtOnce = 4;  // matrices read side by side while an element's sum is at hand

// sum [rows×columns] += scale·values, rows of the sum `stride` apart.
template <typename T>
WEFT_FOR_THIS_PROCESSOR void AddRows(double* sum, int64_t stride, const T* values, int64_t rows,
                                     int64_t columns, double scale) {
  for (int64_t row = 0; row < rows; ++row, sum += stride, values += columns) {
    for (int64_t i = 0; i < columns; ++i) sum[i] += scale * static_cast<double>(values[i]);
  }
}

// The same of kAtOnce runs of numbers, one after the other for each element.
WEFT_FOR_THIS_PROCESSOR
void AddRuns(double* sum, const float* const* values, const double* scales, int64_t count) {
  const float* const first = values[0];
  const float* const second = values[1];
  const float* const third = values[2];
  const float* const fourth = values[3];
  for (int64_t i = 0; i < count; ++i) {
    double own = sum[i];
    own += scales[0] * static_cast<double>(first[i]);
    own += scales[1] * static_cast<double>(second[i]);
    own += scales[2] * static_cast<double>(third[i]);
    own += scales[3] * static_cast<double>(fourth[i]);
    sum[i] = own;
  }
}

}  // namespace

// The block of all matrices that begins with row `begin`.
class WeightedSum::Block {
 public:
  Block(double* sum, int64_t begin, int64_t rows, int64_t columns)
      : sum_(sum), begin_(begin), rows_(rows), columns_(columns) {}

  void Add(std::span<const Matrix> matrices) {
    size_t k = 0;
    while (k < matrices.size()) {
      if (k + kAtOnce <= matrices.size() && AreRuns(matrices.subspan(k, kAtOnce))) {
        AddFour(matrices.subspan(k, kAtOnce));
        k += kAtOnce;
      } else {
        AddAlone(matrices[k++]);
      }
    }
  }

 private:
  // As wide as the sum and of all its rows here, so that their numbers follow each other.
  [[nodiscard]] bool AreRuns(std::span<const Matrix> matrices) const {
    return std::all_of(matrices.begin(), matrices.end(), [this](const Matrix& matrix) {
      return matrix.values.size(1) == columns_ && matrix.values.size(0) >= begin_ + rows_ &&
             matrix.values.scalar_type() == at::kFloat;
    });
  }

  void AddFour(std::span<const Matrix> matrices) {
    const float* values[kAtOnce];
    double scales[kAtOnce];
    for (size_t j = 0; j < kAtOnce; ++j) {
      values[j] = matrices[j].values.const_data_ptr<float>() + begin_ * columns_;
      scales[j] = matrices[j].scale;
    }
    AddRuns(sum_, values, scales, rows_ * columns_);
  }

  void AddAlone(const Matrix& matrix) {
    const at::Tensor& values = matrix.values;
    const int64_t rows = std::min(rows_, values.size(0) - begin_);
    if (rows <= 0) return;
    const int64_t own = values.size(1);
    if (values.scalar_type() == at::kDouble) {
      const double* const from = values.const_data_ptr<double>() + begin_ * own;
      return AddRows(sum_, columns_, from, rows, own, matrix.scale);
    }
    AddRows(sum_, columns_, values.const_data_ptr<float>() + begin_ * own, rows, own, matrix.scale);
  }

  double* sum_;
  int64_t begin_;
  int64_t rows_;
  int64_t columns_;
};

WeightedSum::WeightedSum(int64_t rows, int64_t columns)
    : sum_RC_(at::zeros({rows, columns}, at::kDouble)) {}

void WeightedSum::Add(const at::Tensor& values, double scale) {
  WEFT_CHECK(values.dim() == 2, "a matrix of shape ", values.sizes());
  GrowTo(values.size(0), values.size(1));
  const at::ScalarType type = values.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  held_.push_back({values.to(at::kCPU, type).contiguous(), scale});
  held_bytes_ += static_cast<int64_t>(held_.back().values.nbytes());
  if (held_bytes_ >= kHeldBytesMax && held_.size() % kAtOnce == 0) AddHeld();
}

void WeightedSum::GrowTo(int64_t rows, int64_t columns) {
  if (rows <= sum_RC_.size(0) && columns <= sum_RC_.size(1)) return;
  AddHeld();
  const at::Tensor before = std::move(sum_RC_);
  sum_RC_ = at::zeros({std::max(rows, before.size(0)), std::max(columns, before.size(1))},
                      before.options());
  sum_RC_.narrow(0, 0, before.size(0)).narrow(1, 0, before.size(1)).copy_(before);
}

void WeightedSum::AddHeld() {
  const int64_t rows = sum_RC_.size(0);
  const int64_t columns = sum_RC_.size(1);
  auto* const sum = sum_RC_.mutable_data_ptr<double>();
  const int64_t step = std::max<int64_t>(1, kBlock / std::max<int64_t>(1, columns));
  for (int64_t begin = 0; begin < rows; begin += step) {
    Block(sum + begin * columns, begin, std::min(step, rows - begin), columns).Add(held_);
  }
  held_.clear();
  held_bytes_ = 0;
}

at::Tensor WeightedSum::Take() {
  AddHeld();
  return std::move(sum_RC_);
}

}  // namespace weft
