#include "common/model/decoder.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/formats/model_layout.h"
#include "common/formats/rope.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

// One site's adapters; slots are handed out to factors that take gradients.
std::vector<SiteFactors> FactorsOf(size_t site, const AdapterBinding& adapters, bool training,
                                   bool with_gradients, std::vector<at::Tensor>& inputs) {
  std::vector<SiteFactors> found;
  const auto slot_of = [&](const at::Tensor& tensor) -> int64_t {
    if (!with_gradients || !tensor.requires_grad()) return -1;
    inputs.push_back(tensor);
    return static_cast<int64_t>(inputs.size()) - 1;
  };
  for (size_t j = 0; j < adapters.size(); ++j) {
    const Factors& factors = adapters[j][site];
    const LowRank& low_rank = factors.low_rank;
    if (!low_rank.A_RI.defined() || low_rank.A_RI.size(0) == 0) continue;
    SiteFactors one{.A_RI = low_rank.A_RI.detach(), .B_OR = low_rank.B_OR.detach()};
    one.a_slot = slot_of(low_rank.A_RI);
    one.b_slot = slot_of(low_rank.B_OR);
    one.dropout = training ? factors.dropout : 0;
    one.dropout_stream = (uint64_t{j} << 32) | site;
    found.push_back(std::move(one));
  }
  return found;
}

void CheckBinding(const AdapterBinding& adapters, const std::vector<LinearSite>& sites) {
  for (const std::vector<Factors>& adapter : adapters) {
    WEFT_CHECK(adapter.size() == sites.size(), "one entry per site: ", adapter.size(), " of ",
               sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
      const LowRank& factors = adapter[i].low_rank;
      if (!factors.A_RI.defined()) continue;
      WEFT_CHECK(factors.A_RI.dim() == 2 && factors.B_OR.dim() == 2 &&
                     factors.A_RI.size(1) == sites[i].in && factors.B_OR.size(0) == sites[i].out &&
                     factors.A_RI.size(0) == factors.B_OR.size(1),
                 sites[i].path);
    }
  }
}

}  // namespace

Decoder::Decoder(ModelConfig config, DecoderWeights weights, at::Device device,
                 at::ScalarType dtype)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      sites_(LinearSites(config_)),
      device_(device),
      dtype_(dtype) {}

BoundAdapters Decoder::Bind(const AdapterBinding& adapters, const ForwardOptions& options,
                            bool with_gradients) const {
  CheckBinding(adapters, sites_);
  BoundAdapters bound;
  bound.lowest_layer = config_.num_layers;
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const LayerWeights& layer = weights_.layers[static_cast<size_t>(i)];
    const size_t before = bound.inputs.size();
    const auto bind = [&](const ProjectionGroup& group) {
      std::vector<std::vector<SiteFactors>> by_part;
      for (const ProjectionPart& part : group.parts) {
        by_part.push_back(
            FactorsOf(part.site, adapters, options.training, with_gradients, bound.inputs));
      }
      return BindGroup(group, by_part, dtype_, device_, options.dropout_seed);
    };
    BoundLayer one{
        .qkv = bind(layer.qkv), .o = bind(layer.o), .up = bind(layer.up), .down = bind(layer.down)};
    bound.layers.push_back(std::move(one));
    if (bound.inputs.size() > before) bound.lowest_layer = std::min(bound.lowest_layer, i);
  }
  bound.num_factor_inputs = bound.inputs.size();
  if (with_gradients && !weights_.trainable.empty()) {
    bound.lowest_layer = -1;
    for (const NamedTensor& leaf : weights_.trainable) bound.inputs.push_back(leaf.value);
  }
  return bound;
}

RopeTable Decoder::MakeRope(int64_t first, int64_t count) const {
  RopeTable table;
  table.first = first;
  if (!config_.uses_rope()) return table;
  const std::vector<float> frequencies =
      RopeInverseFrequencies(config_.rope, config_.head_dim, config_.max_positions, first + count);
  const at::Tensor positions_T = at::arange(first, first + count, at::kFloat);
  const at::Tensor angle_TP = at::outer(positions_T, at::tensor(frequencies, at::kFloat));
  const double factor = config_.rope.attention_factor;
  table.cos_TP = at::cos(angle_TP).mul_(factor).to(device_);
  table.sin_TP = at::sin(angle_TP).mul_(factor).to(device_);
  return table;
}

PassContext Decoder::MakePass(const PackedBatch& batch) const {
  WEFT_CHECK(batch.row_starts.size() >= 2 && batch.row_starts.front() == 0 &&
                 batch.row_starts.back() == batch.ids_N.size(0),
             "a packed batch has rows that cover its tokens");
  PassContext pass;
  pass.config = &config_;
  pass.heads = {config_.num_heads, config_.num_kv_heads, config_.head_dim};
  pass.positions_N = batch.positions_N.to(device_);
  pass.rows = MakeRowIndex(batch.row_starts, device_);
  pass.rope = MakeRope(0, pass.rows.longest);
  return pass;
}

at::Tensor Decoder::Embed(const at::Tensor& ids_N, const at::Tensor& positions_N) const {
  const at::Tensor h_NE = weights_.embed_VE.index_select(0, ids_N.to(device_));
  if (weights_.positions_PE.defined()) {
    h_NE.add_(weights_.positions_PE.index_select(0, positions_N));
  }
  return h_NE;
}

at::Tensor Decoder::Hidden(const PassContext& pass, const BoundAdapters& bound,
                           const at::Tensor& ids_N) const {
  at::Tensor h_NE = Embed(ids_N, pass.positions_N);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    LayerTape tape;
    h_NE = LayerForward(pass, i, weights_.layers[at], bound.layers[at], h_NE, &tape);
  }
  return h_NE;
}

at::Tensor Decoder::HeadLogits(const at::Tensor& h_LE) const {
  at::Tensor stats;
  const at::Tensor n_LE = NormForward(NormOf(weights_.final_norm, config_.norm_eps), h_LE, &stats);
  const at::ScalarType type = ProductType(n_LE, weights_.head_VE);
  return n_LE.to(type).mm(weights_.head_VE.to(type).t()).to(at::kFloat);
}

at::Tensor Decoder::Logits(const PackedBatch& batch, const AdapterBinding& adapters) const {
  const at::NoGradGuard no_grad;
  const BoundAdapters bound = Bind(adapters, {}, false);
  const PassContext pass = MakePass(batch);
  const at::Tensor h_NE = Hidden(pass, bound, batch.ids_N);
  return HeadLogits(h_NE.index_select(0, batch.label_at_L.to(device_)));
}

Result<std::shared_ptr<Model>> Model::Load(const std::filesystem::path& folder,
                                           const LoadOptions& options) {
  if (options.trainable && options.dtype != at::kFloat && options.dtype != at::kDouble) {
    return InvalidArgument(Str("[model] ", folder.string(), ": training all weights computes in ",
                               "float32, got ", c10::toString(options.dtype),
                               "; leave --dtype out or train an adapter"));
  }
  return Guarded("[model]", [&]() -> Result<std::shared_ptr<Model>> {
    WEFT_TRY_ASSIGN(ModelConfig config, ReadModelConfig(folder));
    WEFT_TRY_ASSIGN(DecoderWeights weights, LoadWeights(folder, config, options));
    std::shared_ptr<Model> model = std::make_shared<Decoder>(std::move(config), std::move(weights),
                                                             options.device, options.dtype);
    return model;
  });
}

}  // namespace weft
