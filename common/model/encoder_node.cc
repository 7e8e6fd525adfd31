// The hidden states of a packed batch's labelled positions as one autograd node: the forward pass
// keeps a tape per layer (or, with checkpointing, only each layer's input), the backward pass walks
// the layers down.

#include <algorithm>
#include <memory>
#include <utility>

#include "common/model/encoder.h"
#include "common/model/tape_node.h"

namespace weft {
namespace {

// What the backward pass needs; lives in the autograd graph until it ran.
struct HiddenTape {
  std::shared_ptr<const Encoder> model;
  BoundAdapters bound;
  PassContext pass;
  bool checkpointing = false;
  at::Tensor ids_N;
  at::Tensor types_N;  // may be undefined
  at::Tensor label_at_L;
  at::Tensor embedded_NE;  // before the embeddings' norm, of a trainable model
  at::Tensor stats_NS;
  std::vector<EncoderTape> layers;
  MatrixObserver* observer = nullptr;
};

at::Tensor TapedHidden(const PackedBatch& batch, HiddenTape& tape) {
  const Encoder& model = *tape.model;
  const ModelWeights& weights = model.weights();
  const at::Tensor embedded_NE = model.Embed(batch, tape.pass);
  at::Tensor h_NE =
      NormForward(NormOf(weights.embed_norm, model.config().norm_eps), embedded_NE, &tape.stats_NS);
  if (tape.bound.lowest_layer < 0) tape.embedded_NE = embedded_NE;
  for (int64_t i = 0; i < model.config().num_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    EncoderTape layer;
    const at::Tensor input_NE = h_NE;
    h_NE =
        EncoderForward(tape.pass, i, weights.layers[at], tape.bound.layers[at], input_NE, &layer);
    if (i < tape.bound.lowest_layer) continue;
    if (tape.checkpointing) {
      tape.layers[at].h_NE = input_NE;
    } else {
      tape.layers[at] = std::move(layer);
    }
  }
  return h_NE;
}

void EmbeddingGradients(const HiddenTape& tape, const at::Tensor& dh_NE, GradientSlots& gradients) {
  const ModelWeights& weights = tape.model->weights();
  const at::Tensor dsum_NE = NormInputGradient(tape.pass, weights.embed_norm, tape.embedded_NE,
                                               tape.stats_NS, dh_NE, gradients);
  const auto add = [&](const at::Tensor& table, int64_t slot, const at::Tensor& index_N) {
    gradients.Add(tape.pass.weight_offset + slot,
                  at::zeros_like(table).index_add_(0, index_N, dsum_NE));
  };
  add(weights.embed_VE, weights.embed_slot, tape.ids_N);
  add(weights.positions_PE, weights.positions_slot, tape.pass.positions_N);
  add(weights.types_KE, weights.types_slot,
      tape.types_N.defined() ? tape.types_N : at::zeros_like(tape.ids_N));
}

std::vector<at::Tensor> RunBackward(HiddenTape& tape, const at::Tensor& dh_LE) {
  const at::NoGradGuard no_grad;
  const Encoder& model = *tape.model;
  GradientSlots gradients(tape.bound.inputs.size(), tape.observer);
  at::Tensor dh_NE = at::zeros({tape.ids_N.size(0), dh_LE.size(1)}, dh_LE.options());
  dh_NE.index_add_(0, tape.label_at_L, dh_LE);
  const int64_t lowest = tape.bound.lowest_layer;
  for (int64_t i = model.config().num_layers - 1; i >= std::max(lowest, int64_t{0}); --i) {
    const auto at = static_cast<size_t>(i);
    const LayerWeights& weights = model.weights().layers[at];
    EncoderTape& layer = tape.layers[at];
    if (tape.checkpointing) {
      const at::Tensor input_NE = layer.h_NE;
      (void)EncoderForward(tape.pass, i, weights, tape.bound.layers[at], input_NE, &layer);
    }
    dh_NE = EncoderBackward(tape.pass, i, weights, tape.bound.layers[at], layer, dh_NE, i > lowest,
                            gradients);
    layer = EncoderTape();
  }
  if (lowest < 0) EmbeddingGradients(tape, dh_NE, gradients);
  return GradientsOfInputs(tape.bound, std::move(gradients));
}

}  // namespace

at::Tensor Encoder::Pooled(const PackedBatch& batch, const AdapterBinding& adapters,
                           const ForwardOptions& options) const {
  const auto tape = std::make_shared<HiddenTape>();
  const bool wanted = at::GradMode::is_enabled();
  const at::NoGradGuard no_grad;
  tape->model = shared_from_this();
  tape->bound = BindAdapters({weights_, sites_, dtype_, device_}, adapters, options, wanted);
  tape->pass = MakePass(batch);
  tape->pass.weight_offset = static_cast<int64_t>(tape->bound.num_factor_inputs);
  tape->checkpointing = options.gradient_checkpointing;
  tape->observer = options.observer;
  tape->ids_N = batch.ids_N.to(device_);
  if (batch.types_N.defined() && config_.token_types > 1) tape->types_N = batch.types_N.to(device_);
  tape->label_at_L = batch.label_at_L.to(device_);
  tape->layers.resize(static_cast<size_t>(config_.num_layers));
  if (tape->bound.inputs.empty()) {
    return HiddenStates(batch, adapters).index_select(0, tape->label_at_L);
  }
  at::Tensor h_LE = TapedHidden(batch, *tape).index_select(0, tape->label_at_L);
  const std::vector<at::Tensor> inputs = tape->bound.inputs;
  AttachBackward(h_LE, inputs, "WeftHidden",
                 [tape](const at::Tensor& dh_LE) { return RunBackward(*tape, dh_LE); });
  return h_LE;
}

}  // namespace weft
