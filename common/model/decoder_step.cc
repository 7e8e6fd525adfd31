// Incremental decoding: one sequence at a time, keys and values of earlier tokens kept per layer.
//
// Shape legend: N new tokens, T tokens in all, H query heads, K key heads, D head dimension.

#include <algorithm>

#include "common/base/check.h"
#include "common/model/decoder.h"

namespace weft {
namespace {

struct LayerCache {
  at::Tensor k_TKD;  // capacity × K × D, grown by doubling
  at::Tensor v_TKD;
};

class DecoderCache final : public Model::Cache {
 public:
  int64_t length = 0;
  std::vector<LayerCache> layers;
};

void Append(at::Tensor& store_TKD, int64_t length, const at::Tensor& new_NKD) {
  const int64_t needed = length + new_NKD.size(0);
  if (!store_TKD.defined() || store_TKD.size(0) < needed) {
    const int64_t capacity = std::max(needed, 2 * length);
    at::Tensor grown_TKD =
        at::empty({capacity, new_NKD.size(1), new_NKD.size(2)}, new_NKD.options());
    if (length > 0) grown_TKD.narrow(0, 0, length).copy_(store_TKD.narrow(0, 0, length));
    store_TKD = grown_TKD;
  }
  store_TKD.narrow(0, length, new_NKD.size(0)).copy_(new_NKD);
}

// Queries of the new tokens against all keys; token t of the new ones sees the cache and the new
// ones up to itself, cut to the window.
at::Tensor AttendCached(const AttentionShape& shape, const at::Tensor& q_NHD,
                        const at::Tensor& k_TKD, const at::Tensor& v_TKD, int64_t past) {
  const HeadLayout& heads = shape.layout;
  const int64_t tokens = q_NHD.size(0), total = k_TKD.size(0);
  const int64_t repeat = heads.heads / heads.kv_heads;
  const auto by_head = [&](const at::Tensor& x_TKD) {
    return x_TKD.transpose(0, 1)
        .unsqueeze(1)
        .expand({heads.kv_heads, repeat, total, heads.head_dim})
        .reshape({heads.heads, total, heads.head_dim});
  };
  at::Tensor scores_HNT = at::matmul(q_NHD.transpose(0, 1), by_head(k_TKD).transpose(1, 2))
                              .to(at::kFloat)
                              .mul_(shape.scale);
  if (tokens > 1 || (shape.window > 0 && shape.window < total)) {
    const at::TensorOptions options = at::TensorOptions().dtype(at::kLong).device(q_NHD.device());
    const at::Tensor query_N1 = at::arange(past, past + tokens, options).unsqueeze(1);
    const at::Tensor key_1T = at::arange(0, total, options).unsqueeze(0);
    at::Tensor hidden_NT = key_1T > query_N1;
    if (shape.window > 0) hidden_NT = hidden_NT.logical_or(key_1T <= query_N1 - shape.window);
    scores_HNT.masked_fill_(hidden_NT, -std::numeric_limits<double>::infinity());
  }
  const at::Tensor p_HNT = at::softmax(scores_HNT, -1).to(q_NHD.scalar_type());
  return at::matmul(p_HNT, by_head(v_TKD)).transpose(0, 1).reshape({tokens, heads.q_features()});
}

}  // namespace

std::unique_ptr<Model::Cache> Decoder::NewCache() const {
  auto cache = std::make_unique<DecoderCache>();
  cache->layers.resize(static_cast<size_t>(config_.num_layers));
  return cache;
}

at::Tensor Decoder::Step(const at::Tensor& ids_N, Cache& cache,
                         const AdapterBinding& adapters) const {
  const at::NoGradGuard no_grad;
  auto& state = static_cast<DecoderCache&>(cache);
  const BoundAdapters bound = Bind(adapters, {}, false);
  const int64_t tokens = ids_N.size(0), past = state.length;
  WEFT_CHECK(tokens > 0, "a step needs a token");
  PassContext pass;
  pass.config = &config_;
  pass.heads = {config_.num_heads, config_.num_kv_heads, config_.head_dim};
  pass.positions_N = at::arange(past, past + tokens, at::TensorOptions(at::kLong).device(device_));
  pass.rope = MakeRope(past, tokens);
  at::Tensor h_NE = Embed(ids_N, pass.positions_N);
  const HeadLayout& heads = pass.heads;
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    const LayerWeights& layer = weights_.layers[at];
    LayerTape tape;
    const at::Tensor qkv_NTD =
        QkvForward(pass, layer, bound.layers[at], h_NE, &tape).view({tokens, -1, heads.head_dim});
    LayerCache& kept = state.layers[at];
    Append(kept.k_TKD, past, qkv_NTD.narrow(1, heads.heads, heads.kv_heads));
    Append(kept.v_TKD, past, qkv_NTD.narrow(1, heads.heads + heads.kv_heads, heads.kv_heads));
    const at::Tensor o_NQ = AttendCached(ShapeOf(config_, i), qkv_NTD.narrow(1, 0, heads.heads),
                                         kept.k_TKD.narrow(0, 0, past + tokens),
                                         kept.v_TKD.narrow(0, 0, past + tokens), past);
    h_NE = TailForward(pass, layer, bound.layers[at], h_NE, o_NQ, &tape);
  }
  state.length += tokens;
  return HeadLogits(h_NE.narrow(0, tokens - 1, 1)).squeeze(0);
}

}  // namespace weft
