// The loss of a packed batch as one autograd node: the forward pass keeps a tape per layer (or,
// with checkpointing, only each layer's input) and works out the gradient at the last hidden state
// while it has the logits; the backward pass walks the layers down.

#include <algorithm>
#include <memory>
#include <utility>

#include "common/base/check.h"
#include "common/model/decoder.h"
#include "common/model/tape_node.h"

namespace weft {
namespace {

// Logits exist in blocks of about this many elements (512 rows of a 49,152-word vocabulary): fewer
// rows and the products spend their time rearranging the head's weights.
constexpr int64_t kLogitElements = int64_t{512} * 49152;

struct HeadResult {
  double loss = 0;
  at::Tensor dh_LE;  // gradient at the final norm's input
};

HeadResult HeadLoss(const Decoder& model, const PassContext& pass, const at::Tensor& h_LE,
                    const at::Tensor& labels_L, const at::Tensor& answers_V, bool with_gradient,
                    GradientSlots* gradients) {
  const ModelWeights& weights = model.weights();
  const Norm norm = NormOf(weights.final_norm, model.config().norm_eps);
  at::Tensor stats_LS;
  const at::ScalarType type = ProductType(h_LE, weights.head_VE);
  const at::Tensor n_LE = NormForward(norm, h_LE, &stats_LS).to(type);
  const at::Tensor chosen_VE =
      answers_V.defined() ? weights.head_VE.index_select(0, answers_V) : weights.head_VE;
  const at::Tensor head_VE = chosen_VE.to(type);
  const int64_t count = h_LE.size(0);
  const int64_t vocabulary = head_VE.size(0);
  const int64_t block =
      std::clamp(kLogitElements / vocabulary, int64_t{64}, std::max(count, int64_t{64}));
  const bool trains = with_gradient && weights.head_slot >= 0;
  WEFT_CHECK(!trains || !answers_V.defined(), "full fine-tuning learns the whole vocabulary");
  at::Tensor buffer = at::empty({std::min(block, count), vocabulary}, n_LE.options());
  at::Tensor dn_LE, dhead_VE;
  if (with_gradient) dn_LE = at::empty_like(n_LE);
  if (trains) dhead_VE = at::zeros_like(weights.head_VE);
  HeadResult result;
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t rows = std::min(block, count - begin);
    at::Tensor logits_LV = buffer.narrow(0, 0, rows);
    const at::Tensor own_LE = n_LE.narrow(0, begin, rows);
    at::mm_out(logits_LV, own_LE, head_VE.t());
    result.loss += CrossEntropySum(logits_LV, labels_L.narrow(0, begin, rows), with_gradient);
    if (!with_gradient) continue;
    at::Tensor own_dn_LE = dn_LE.narrow(0, begin, rows);
    at::mm_out(own_dn_LE, logits_LV, head_VE);
    if (trains) dhead_VE.addmm_(logits_LV.t(), own_LE);
  }
  if (!with_gradient) return result;
  result.dh_LE = at::zeros_like(h_LE);
  NormGrads grads;
  NormBackward(norm, h_LE, stats_LS, dn_LE.to(h_LE.scalar_type()), result.dh_LE,
               trains ? &grads : nullptr);
  if (trains) {
    gradients->Add(pass.weight_offset + weights.head_slot, dhead_VE);
    gradients->Add(pass.weight_offset + weights.final_norm.weight_slot, grads.weight_E);
    if (weights.final_norm.bias_slot >= 0) {
      gradients->Add(pass.weight_offset + weights.final_norm.bias_slot, grads.bias_E);
    }
  }
  return result;
}

// What the backward pass needs; lives in the autograd graph until it ran.
struct LossTape {
  std::shared_ptr<const Decoder> model;
  BoundAdapters bound;
  PassContext pass;
  bool checkpointing = false;
  at::Tensor ids_N;
  at::Tensor label_at_L;
  std::vector<LayerTape> layers;
  at::Tensor dh_LE;
  std::vector<at::Tensor> head_gradients;  // by slot, of a trainable model
  MatrixObserver* observer = nullptr;
};

void EmbeddingGradients(const LossTape& tape, const at::Tensor& dh_NE, GradientSlots& gradients) {
  const ModelWeights& weights = tape.model->weights();
  const auto add = [&](const at::Tensor& table, int64_t slot, const at::Tensor& index_N) {
    if (slot < 0) return;
    gradients.Add(tape.pass.weight_offset + slot,
                  at::zeros_like(table).index_add_(0, index_N, dh_NE));
  };
  add(weights.embed_VE, weights.embed_slot, tape.ids_N);
  if (weights.positions_PE.defined()) {
    add(weights.positions_PE, weights.positions_slot, tape.pass.positions_N);
  }
}

std::vector<at::Tensor> RunBackward(LossTape& tape, const at::Tensor& dloss) {
  const at::NoGradGuard no_grad;
  const Decoder& model = *tape.model;
  GradientSlots gradients(tape.bound.inputs.size(), tape.observer);
  for (size_t i = 0; i < tape.head_gradients.size(); ++i) {
    if (tape.head_gradients[i].defined()) {
      gradients.Add(static_cast<int64_t>(i), tape.head_gradients[i] * dloss);
    }
  }
  const at::Tensor scaled_LE = tape.dh_LE * dloss.to(tape.dh_LE.options());
  tape.dh_LE = at::Tensor();
  at::Tensor dh_NE = at::zeros({tape.ids_N.size(0), scaled_LE.size(1)}, scaled_LE.options());
  dh_NE.index_add_(0, tape.label_at_L, scaled_LE);
  const int64_t lowest = tape.bound.lowest_layer;
  for (int64_t i = model.config().num_layers - 1; i >= std::max(lowest, int64_t{0}); --i) {
    const auto at = static_cast<size_t>(i);
    const LayerWeights& weights = model.weights().layers[at];
    LayerTape& layer = tape.layers[at];
    if (tape.checkpointing) {
      const at::Tensor input_NE = layer.h_NE;
      (void)LayerForward(tape.pass, i, weights, tape.bound.layers[at], input_NE, &layer);
    }
    dh_NE = LayerBackward(tape.pass, i, weights, tape.bound.layers[at], layer, dh_NE, i > lowest,
                          gradients);
    layer = LayerTape();
  }
  if (lowest < 0) EmbeddingGradients(tape, dh_NE, gradients);
  return GradientsOfInputs(tape.bound, std::move(gradients));
}

// All layers, leaving on the tape what the backward pass of each will need.
at::Tensor TapedHidden(LossTape& tape) {
  const Decoder& model = *tape.model;
  at::Tensor h_NE = model.Embed(tape.ids_N, tape.pass.positions_N);
  for (int64_t i = 0; i < model.config().num_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    LayerTape layer;
    const at::Tensor input_NE = h_NE;
    h_NE = LayerForward(tape.pass, i, model.weights().layers[at], tape.bound.layers[at], input_NE,
                        &layer);
    if (i < tape.bound.lowest_layer) continue;
    if (tape.checkpointing) {
      tape.layers[at].h_NE = input_NE;
    } else {
      tape.layers[at] = std::move(layer);
    }
  }
  return h_NE;
}

}  // namespace

at::Tensor Decoder::LossSum(const PackedBatch& batch, const AdapterBinding& adapters,
                            const ForwardOptions& options) const {
  const auto tape = std::make_shared<LossTape>();
  const bool wanted = at::GradMode::is_enabled();
  const at::NoGradGuard no_grad;
  tape->model = shared_from_this();
  tape->bound = Bind(adapters, options, wanted);
  tape->pass = MakePass(batch);
  tape->pass.weight_offset = static_cast<int64_t>(tape->bound.num_factor_inputs);
  tape->checkpointing = options.gradient_checkpointing;
  tape->observer = options.observer;
  tape->ids_N = batch.ids_N.to(device_);
  tape->label_at_L = batch.label_at_L.to(device_);
  tape->layers.resize(static_cast<size_t>(config_.num_layers));
  const bool with_gradient = !tape->bound.inputs.empty();
  const at::Tensor h_NE =
      with_gradient ? TapedHidden(*tape) : Hidden(tape->pass, tape->bound, tape->ids_N);
  GradientSlots head(tape->bound.inputs.size());
  const at::Tensor answers_V =
      options.answers_V.defined() ? options.answers_V.to(device_) : at::Tensor();
  HeadResult result = HeadLoss(*this, tape->pass, h_NE.index_select(0, tape->label_at_L),
                               batch.labels_L.to(device_), answers_V, with_gradient, &head);
  at::Tensor loss = at::scalar_tensor(
      result.loss,
      at::TensorOptions().dtype(dtype_ == at::kDouble ? at::kDouble : at::kFloat).device(device_));
  if (!with_gradient) return loss;
  tape->dh_LE = std::move(result.dh_LE);
  tape->head_gradients = std::move(head.slots());
  const std::vector<at::Tensor> inputs = tape->bound.inputs;
  AttachBackward(loss, inputs, "WeftLoss",
                 [tape](const at::Tensor& dloss) { return RunBackward(*tape, dloss); });
  return loss;
}

}  // namespace weft
