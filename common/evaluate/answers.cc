#include "common/evaluate/answers.h"

#include <algorithm>

#include "common/data/batch.h"
#include "common/tensor/guard.h"

// Shape legend: L labelled positions, V vocabulary.

namespace weft {
namespace {

// The most likely token at each labelled position, on the CPU; the first of equal ones.
at::Tensor Likeliest(const Model& model, const AdapterBinding& adapters, const PackedBatch& batch) {
  const at::NoGradGuard no_grad;
  return model.Logits(batch, adapters).argmax(1).to(at::kCPU).contiguous();
}

// Calls work(first row, batch) for `batch_rows` rows at a time.
template <typename Work>
Status InBatches(const Model& model, std::span<const TokenRow> rows, int64_t batch_rows,
                 JobControl& control, const Work& work) {
  std::vector<const TokenRow*> pointers;
  for (const TokenRow& row : rows) pointers.push_back(&row);
  size_t first = 0;
  for (const auto piece : MicroBatches(pointers, batch_rows)) {
    if (control.cancelled) return Cancelled("[evaluate] stopped on request");
    WEFT_TRY(Guarded("[evaluate]", [&] {
      work(first, Pack(piece, {.device = model.device()}));
      return OkStatus();
    }));
    first += piece.size();
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<bool>> AnswersAreLabels(const Model& model, const AdapterBinding& adapters,
                                           std::span<const TokenRow> rows, int64_t batch_rows,
                                           JobControl& control) {
  std::vector<bool> right;
  right.reserve(rows.size());
  for (const TokenRow& row : rows) WEFT_CHECK(row.num_labels() > 0, "a row without a label");
  WEFT_TRY(InBatches(model, rows, batch_rows, control, [&](size_t first, const PackedBatch& batch) {
    const at::Tensor same = Likeliest(model, adapters, batch).eq(batch.labels_L.to(at::kCPU));
    const bool* const flags = same.const_data_ptr<bool>();
    int64_t at = 0;
    for (int64_t i = 0; i < batch.num_rows(); ++i) {
      const int64_t count = rows[first + static_cast<size_t>(i)].num_labels();
      right.push_back(std::all_of(flags + at, flags + at + count, [](bool flag) { return flag; }));
      at += count;
    }
  }));
  return right;
}

Result<std::vector<TokenRow>> GreedyAnswers(const Model& model, const AdapterBinding& adapters,
                                            std::span<const std::vector<int32_t>> prompts,
                                            int64_t length, int64_t batch_rows,
                                            JobControl& control) {
  std::vector<TokenRow> rows;
  for (const std::vector<int32_t>& prompt : prompts) {
    WEFT_CHECK(!prompt.empty(), "a prompt without a token");
    rows.push_back({prompt, std::vector<int32_t>(prompt.size(), kNoLabel)});
  }
  for (int64_t step = 0; step < length; ++step) {
    // Only the new token is looked at; which one stands there does not reach its own logits.
    for (TokenRow& row : rows) {
      std::fill(row.labels.begin(), row.labels.end(), kNoLabel);
      row.ids.push_back(0);
      row.labels.push_back(0);
    }
    std::vector<int64_t> tokens;
    tokens.reserve(rows.size());
    WEFT_TRY(InBatches(model, rows, batch_rows, control, [&](size_t, const PackedBatch& batch) {
      const at::Tensor likeliest = Likeliest(model, adapters, batch);
      const auto* const ids = likeliest.const_data_ptr<int64_t>();
      tokens.insert(tokens.end(), ids, ids + likeliest.numel());
    }));
    for (size_t i = 0; i < rows.size(); ++i) rows[i].ids.back() = static_cast<int32_t>(tokens[i]);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy(rows[i].ids.begin() + static_cast<std::ptrdiff_t>(prompts[i].size()),
              rows[i].ids.end(),
              rows[i].labels.begin() + static_cast<std::ptrdiff_t>(prompts[i].size()));
  }
  return rows;
}

}  // namespace weft
