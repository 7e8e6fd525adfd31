#pragma once
// Rows with a class (TokenRow::row_class), as a model tells classes apart: an encoder has its own,
// a decoder chooses among the tokens that may come after a row's last one. Stateless.
//
// Shape legend: N tokens, L rows, C classes.

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/data/token_rows.h"
#include "common/model/model.h"

namespace weft {

struct ClassBatch {
  PackedBatch packed;    // labels_L: the rows' classes
  at::Tensor row_of_N;   // int64: the row each token belongs to
  at::Tensor answers_C;  // int64: a decoder's answers by class; undefined: an encoder
};

/// `answers`: a decoder's tokens by class, none twice; empty for an encoder. kInvalidArgument where
/// the model has none or too many of them, an answer is outside its vocabulary, or a row has no
/// class or one beyond the answers.
[[nodiscard]] Result<ClassBatch> PackClassRows(const Model& model,
                                               std::span<const TokenRow* const> rows,
                                               std::span<const int32_t> answers);

/// log p of each class [L×C], float64, without gradients. kInvalidArgument where a row's class is
/// beyond an encoder's, kInternal where logits are not finite.
[[nodiscard]] Result<at::Tensor> ClassLogProbabilities(const Model& model,
                                                       const AdapterBinding& adapters,
                                                       const ClassBatch& batch);

}  // namespace weft
