#pragma once
// ModelWeights: a model's tensors in the form the products need: q, k, v and gate, up side by
// side in one matrix where that costs no second copy of a large model. Immutable after loading.
//
// Shape legend: E hidden, I in, O out, V vocabulary, P positions, D head dimension.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/formats/model_config.h"
#include "common/model/model.h"
#include "common/tensor/torch.h"

namespace weft {

struct NormWeights {
  at::Tensor weight_E;
  at::Tensor bias_E;         // LayerNorm only
  int64_t weight_slot = -1;  // index into ModelWeights::trainable
  int64_t bias_slot = -1;
};

/// One linear layer inside a ProjectionGroup: rows [begin, begin + size) of its output.
struct ProjectionPart {
  size_t site = 0;  // index into Model::sites()
  int64_t begin = 0;
  int64_t size = 0;
  int64_t weight_slot = -1;
  int64_t bias_slot = -1;
  bool stored_transposed = false;  // GPT-2's Conv1D: the named tensor is [in×out]
};

/// Rows [begin, begin + w_OI.size(0)) of a group's output come from this matrix.
struct ProjectionPiece {
  at::Tensor w_OI;  // may be a transposed view
  int64_t begin = 0;
};

/// Linear layers that read the same input: y = x Wᵀ + b, their outputs side by side.
struct ProjectionGroup {
  std::vector<ProjectionPiece> pieces;
  at::Tensor bias_O;  // undefined: none
  std::vector<ProjectionPart> parts;
  int64_t in = 0;
  int64_t out = 0;
};

struct LayerWeights {
  NormWeights norm1, norm2;  // before attention and MLP; of encoders: after them
  ProjectionGroup qkv;       // [q | k | v]
  at::Tensor q_norm_D, k_norm_D;
  int64_t q_norm_slot = -1, k_norm_slot = -1;
  ProjectionGroup o;
  ProjectionGroup up;  // [gate | up], GPT-2: c_fc
  ProjectionGroup down;
};

struct ModelWeights {
  at::Tensor embed_VE;
  int64_t embed_slot = -1;
  at::Tensor positions_PE;  // GPT-2 and encoders
  int64_t positions_slot = -1;
  std::vector<LayerWeights> layers;

  // Of decoders.
  NormWeights final_norm;
  at::Tensor head_VE;  // the embedding itself when tied
  int64_t head_slot = -1;

  // Of encoders.
  at::Tensor types_KE;  // kinds of text
  int64_t types_slot = -1;
  NormWeights embed_norm;
  // What classifies by HF name, pooler included: the leaves themselves where they train. Without
  // the head where the folder has none.
  std::vector<NamedTensor> classifier;

  std::vector<NamedTensor> named;      // every weight by HF name, shaped as stored
  std::vector<NamedTensor> trainable;  // leaves that take gradients and share `named`'s storage
};

/// Reads the folder's weights, or draws them (LoadOptions::init_seed) where there are none.
[[nodiscard]] Result<ModelWeights> LoadWeights(const std::filesystem::path& folder,
                                               const ModelConfig& config,
                                               const LoadOptions& options);

}  // namespace weft
