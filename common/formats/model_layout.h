#pragma once
// The tensors and the linear layers a ModelConfig stands for, by HF name: what a model folder must
// hold and where an adapter can sit. Shapes are [out×in] for linear layers, but [in×out] for
// GPT-2's, which transformers stores transposed (its Conv1D). Stateless; any thread.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/formats/model_config.h"
#include "common/formats/safetensors.h"
#include "common/plan/adapter_spec.h"

namespace weft {

struct ExpectedTensor {
  std::string name;  // e.g. "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;

  friend bool operator==(const ExpectedTensor&, const ExpectedTensor&) = default;
};

/// Every weight of the model in order of use; a tied output head is not one of them, nor is an
/// encoder's classification head, which a folder may lack.
[[nodiscard]] std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

/// The linear layers of the blocks, in order of use, without the output head: what PEFT's
/// "all-linear" means. In and out are those of the product, whatever the storage.
[[nodiscard]] std::vector<LinearSite> LinearSites(const ModelConfig& config);

/// What turns the last hidden state into logits: "lm_head", hidden_size → vocab_size, which an
/// adapter must ask for by name; of an encoder its classification head ("classifier.dense",
/// "classifier.out_proj" or "classifier"), which is trained whole (modules_to_save).
[[nodiscard]] std::vector<LinearSite> HeadSites(const ModelConfig& config);
/// The last of them.
[[nodiscard]] LinearSite OutputHeadSite(const ModelConfig& config);

/// Weight and bias of an encoder's head for `labels` classes; nothing for decoders.
[[nodiscard]] std::vector<ExpectedTensor> HeadTensors(const ModelConfig& config, int64_t labels);

/// The stored tensor of an expected name: GPT-2's files may leave out the "transformer." prefix, as
/// files saved from the model without its head leave out "model."; old BERT files call a
/// LayerNorm's weight and bias gamma and beta. Null when there is none.
[[nodiscard]] const StoredTensor* FindWeight(const ModelConfig& config,
                                             const SafetensorsFolder& weights,
                                             std::string_view name);

/// Every expected tensor is there with its shape and as F32, F16 or BF16, and no other tensor but
/// the buffers that older versions of transformers saved (rotary frequencies, causal masks) and the
/// copy of a tied head, of encoders the heads they were pre-trained with; an encoder's
/// classification head is there as a whole or not at all. The error names tensor, got and wanted;
/// `where` names the folder.
[[nodiscard]] Status CheckTensors(const ModelConfig& config, const SafetensorsFolder& weights,
                                  std::string_view where);

}  // namespace weft
