#include "aggregator/strategies/state_block.h"

#include "common/base/str.h"
#include "common/codec/layout.h"
#include "common/codec/precision.h"

namespace weft {
namespace {

constexpr char kRuleRole[] = "rule";
constexpr char kMemoryRole[] = "memory";
constexpr char kStrategyOption[] = "strategy";

Result<AdapterState> ViewSection(const BlockSection& section) {
  std::vector<LinearSite> sites;
  for (const BlockSite& site : section.sites) sites.push_back(site.site);
  WEFT_TRY(CheckLayout(section, section.spec, sites, Float32Codec().dtype(), DenseOf(section))
               .Within("[state]"));
  return ViewAdapter(section, Float32Codec());
}

}  // namespace

Result<EncodedState> EncodeState(const GlobalState& state) {
  TensorBlock block;
  WEFT_TRY_ASSIGN(BlockSection adapter, EncodeAdapter(state.adapter, kAdapterRole, Float32Codec()));
  block.sections.push_back(std::move(adapter));
  EncodedState encoded;
  encoded.adapter_sha256 = TensorBlockSha256(block);
  if (state.base_change) {
    WEFT_TRY_ASSIGN(BlockSection base,
                    EncodeAdapter(*state.base_change, kBaseRole, Float32Codec()));
    block.sections.push_back(std::move(base));
  }
  if (!state.memory.empty()) {
    AdapterState memory;
    memory.spec = state.adapter.spec;
    memory.dense = state.memory;
    WEFT_TRY_ASSIGN(BlockSection section, EncodeAdapter(memory, kMemoryRole, Float32Codec()));
    block.sections.push_back(std::move(section));
  }
  BlockSection& rule = block.sections.emplace_back();
  rule.role = kRuleRole;
  rule.spec = state.init;
  rule.spec.options.emplace_back(kStrategyOption, state.strategy);
  encoded.bytes = EncodeTensorBlock(block);
  return encoded;
}

Result<GlobalState> DecodeState(const Blob& bytes, std::string_view strategy) {
  WEFT_TRY_ASSIGN(const TensorBlock block, DecodeTensorBlock(bytes));
  const BlockSection* adapter = block.Find(kAdapterRole);
  const BlockSection* rule = block.Find(kRuleRole);
  if (adapter == nullptr || rule == nullptr || rule->spec.options.empty() ||
      rule->spec.options.back().first != kStrategyOption) {
    return InvalidArgument("[state] these bytes are a tensor block, but no strategy's state");
  }
  GlobalState state;
  state.init = rule->spec;
  state.strategy = state.init.options.back().second;
  state.init.options.pop_back();
  if (!strategy.empty() && state.strategy != strategy) {
    return FailedPrecondition(Str("[state] written by strategy ", state.strategy,
                                  ", the settings say ", strategy, ": a run keeps its strategy"));
  }
  WEFT_TRY_ASSIGN(state.adapter, ViewSection(*adapter));
  if (const BlockSection* base = block.Find(kBaseRole)) {
    WEFT_TRY_ASSIGN(state.base_change, ViewSection(*base));
  }
  if (const BlockSection* section = block.Find(kMemoryRole)) {
    WEFT_TRY_ASSIGN(AdapterState memory, ViewSection(*section));
    state.memory = std::move(memory.dense);
  }
  return state;
}

}  // namespace weft
