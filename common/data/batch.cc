#include "common/data/batch.h"

#include <algorithm>

#include "common/base/check.h"

// Shape legend: N packed tokens, L labelled positions.

namespace weft {
namespace {

at::Tensor ToTensor(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::TensorOptions().dtype(at::kLong)).to(device);
}

}  // namespace

PackedBatch Pack(std::span<const TokenRow* const> rows, const PackOptions& options) {
  size_t longest = 0;
  bool pairs = false;
  for (const TokenRow* row : rows) {
    longest = std::max(longest, row->ids.size());
    pairs = pairs || !row->types.empty();
  }
  std::vector<int64_t> ids;
  std::vector<int64_t> positions;
  std::vector<int64_t> types;
  std::vector<int64_t> label_at;
  std::vector<int64_t> labels;
  PackedBatch batch;
  batch.row_starts.push_back(0);
  for (const TokenRow* row : rows) {
    const bool classified = row->row_class != kNoLabel;
    WEFT_CHECK(row->ids.size() == row->labels.size() || (classified && row->labels.empty()));
    WEFT_CHECK(!row->ids.empty());
    const auto start = static_cast<int64_t>(ids.size());
    ids.insert(ids.end(), row->ids.begin(), row->ids.end());
    if (classified) {
      label_at.push_back(start);
      labels.push_back(row->row_class);
    }
    for (size_t i = 1; i < row->labels.size(); ++i) {
      if (row->labels[i] == kNoLabel) continue;
      label_at.push_back(start + static_cast<int64_t>(i) - 1);
      labels.push_back(row->labels[i]);
    }
    if (options.pad && !classified)
      ids.resize(static_cast<size_t>(start) + longest, options.pad_id);
    const auto end = static_cast<int64_t>(ids.size());
    for (int64_t i = start; i < end; ++i) positions.push_back(i - start);
    if (pairs) {
      types.insert(types.end(), row->types.begin(), row->types.end());
      types.resize(static_cast<size_t>(end), 0);
    }
    batch.row_starts.push_back(end);
  }
  batch.ids_N = ToTensor(ids, options.device);
  batch.positions_N = ToTensor(positions, options.device);
  if (pairs) batch.types_N = ToTensor(types, options.device);
  batch.label_at_L = ToTensor(label_at, options.device);
  batch.labels_L = ToTensor(labels, options.device);
  return batch;
}

std::vector<std::span<const TokenRow* const>> MicroBatches(std::span<const TokenRow* const> rows,
                                                           int64_t rows_max) {
  WEFT_CHECK(rows_max > 0, rows_max);
  std::vector<std::span<const TokenRow* const>> pieces;
  const auto step = static_cast<size_t>(rows_max);
  for (size_t begin = 0; begin < rows.size(); begin += step) {
    pieces.push_back(rows.subspan(begin, std::min(step, rows.size() - begin)));
  }
  return pieces;
}

}  // namespace weft
