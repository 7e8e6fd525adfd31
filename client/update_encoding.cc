#include "client/update_encoding.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/adapters/adapter.h"
#include "common/codec/adapter_block.h"
#include "common/codec/codec.h"
#include "common/codec/delta.h"

namespace weft {
namespace {

// Every tensor, of the dense part too, put through `change`.
AdapterState Mapped(AdapterState state,
                    const std::function<at::Tensor(const NamedTensor&)>& change) {
  MapTensors(state.sites, change);
  for (NamedTensor& tensor : state.dense) tensor.value = change(tensor);
  return state;
}

// The largest share of a tensor's elements; the others zero.
at::Tensor Largest(const at::Tensor& value, double share) {
  const auto count =
      static_cast<int64_t>(std::ceil(share * static_cast<double>(value.numel()) - 1e-9));
  if (count >= value.numel()) return value;
  const at::Tensor flat = value.flatten();
  const at::Tensor chosen = std::get<1>(flat.abs().topk(count, 0, /*largest=*/true,
                                                        /*sorted=*/false));
  return at::zeros_like(flat)
      .index_copy_(0, chosen, flat.index_select(0, chosen))
      .view(value.sizes());
}

// What is owed by tensors that this round trains, and by the others: a method may train one factor
// in one round and the other in the next, and what it does not train must come back as it was sent.
struct Owed {
  AdapterState now;
  AdapterState later;
};

Result<Owed> SplitOwed(const AdapterState& owed, const AdapterSpec& spec) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  const std::vector<std::string> trained = method->Trainable(spec);
  const auto part = [&](bool wanted) {
    AdapterState state = owed;
    MapTensors(state.sites, [&](const NamedTensor& tensor) {
      const bool is = std::find(trained.begin(), trained.end(), tensor.name) != trained.end();
      return is == wanted ? tensor.value : at::zeros_like(tensor.value);
    });
    for (NamedTensor& tensor : state.dense) {  // whole modules always train
      if (!wanted) tensor.value = at::zeros_like(tensor.value);
    }
    return state;
  };
  return Owed{part(true), part(false)};
}

// The adapter in the bytes that the aggregator will read.
Result<AdapterState> Delivered(const Blob& payload, const Codec& codec) {
  WEFT_TRY_ASSIGN(const TensorBlock block, DecodeTensorBlock(payload));
  return ViewAdapter(block.sections[0], codec);
}

AdapterState Capped(AdapterState residual, double norm_max) {
  const double norm = NormOf(residual);
  if (norm <= norm_max || norm_max == 0) return residual;
  return Mapped(std::move(residual),
                [&](const NamedTensor& tensor) { return tensor.value * (norm_max / norm); });
}

}  // namespace

double NormOf(const AdapterState& state) {
  double square = 0;
  static_cast<void>(Mapped(state, [&](const NamedTensor& tensor) {
    square += tensor.value.to(at::kDouble).square().sum().item<double>();
    return tensor.value;
  }));
  return std::sqrt(square);
}

Result<EncodedUpdate> EncodeTrained(const RoundPlan& plan, const TrainedUpdate& trained) {
  const at::NoGradGuard no_grad;
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(plan.codec));
  const TensorForm form = plan.compress ? TensorForm::kCompressed : TensorForm::kShortest;
  EncodedUpdate encoded;
  if (!plan.delta || trained.sent == nullptr) {
    WEFT_TRY_ASSIGN(encoded.payload, EncodeUpdate(trained.shipped, /*delta=*/false, *codec, form));
    return encoded;
  }
  WEFT_TRY_ASSIGN(const AdapterState own, ChangeOf(trained.shipped, *trained.sent));
  AdapterState change = own;
  std::optional<Owed> owed;
  if (plan.error_feedback && trained.owed) {
    WEFT_TRY_ASSIGN(owed, SplitOwed(*trained.owed, trained.shipped.spec));
    WEFT_TRY_ASSIGN(change, WithChange(own, owed->now));
    change.spec = own.spec;
  }
  const AdapterState sent =
      Mapped(change, [&](const NamedTensor& tensor) { return Largest(tensor.value, plan.top_k); });
  WEFT_TRY_ASSIGN(encoded.payload, EncodeUpdate(sent, /*delta=*/true, *codec, form));
  if (!plan.error_feedback) return encoded;
  WEFT_TRY_ASSIGN(const AdapterState delivered, Delivered(encoded.payload, *codec));
  WEFT_TRY_ASSIGN(AdapterState residual, ChangeOf(change, delivered));
  if (owed) {
    WEFT_TRY_ASSIGN(residual, WithChange(residual, owed->later));
    residual.spec = own.spec;
  }
  encoded.residual = Capped(std::move(residual), kResidualNormMax * NormOf(own));
  return encoded;
}

}  // namespace weft
