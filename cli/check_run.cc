#include "cli/check_run.h"

#include <cstdlib>

#include "aggregator/cohort.h"
#include "aggregator/strategies/strategy.h"
#include "client/schedule.h"
#include "common/adapters/adapter.h"
#include "common/adapters/method_spec.h"
#include "common/base/str.h"
#include "common/codec/codec.h"

namespace weft::cli {

namespace {

// The run's method and those of its sites, each with its own options; and that every option is of
// some method, for one with a misspelt name would be nobody's.
Status CheckMethods(const Settings& settings) {
  WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(settings.strategy.name));
  for (const std::string& name : MethodsOfRun(settings)) {
    WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(name));
    WEFT_TRY(method->CheckSpec(ForMethod(settings.adapter, name)));
    if (name != settings.adapter.method && !strategy->traits().mixed_methods) {
      return InvalidArgument(Str("[client] method ", name, " in a run of method ",
                                 settings.adapter.method, ": strategy ", strategy->name(),
                                 " merges one method only; use exact-svd or flora"));
    }
  }
  for (const auto& [option, value] : settings.adapter.options) {
    const size_t dot = option.find('.');
    if (dot == std::string::npos) continue;  // checked by the methods
    WEFT_TRY(FindAdapter(option.substr(0, dot)).status().Within("option \"" + option + "\""));
  }
  return OkStatus();
}

// A rule that merges one rank only: better said here than at the door, to one site after the other.
Status CheckRanks(const Settings& settings) {
  WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(settings.strategy.name));
  if (strategy->traits().mixed_ranks) return OkStatus();
  const auto check = [&](std::string_view whose, int64_t rank) {
    if (rank >= settings.adapter.rank) return OkStatus();
    return InvalidArgument(Str(whose, " rank ", rank, ": strategy ", strategy->name(),
                               " merges one rank only, adapter.rank ", settings.adapter.rank,
                               "; use exact-svd or flora"));
  };
  for (const ClientSettings& client : settings.clients) {
    if (client.rank == "auto") continue;
    WEFT_TRY(check("[client] " + client.name + ":", std::atoll(client.rank.c_str())));
  }
  for (const int64_t rank : settings.sim.ranks) WEFT_TRY(check("[sim]", rank));
  return OkStatus();
}

Status CheckWire(const WireSettings& wire) {
  WEFT_TRY(FindCodec(wire.codec).status());
  WEFT_TRY(FindCodec(wire.down_codec).status().Within("[wire] down-codec"));
  if (wire.delta) return OkStatus();
  if (wire.down_codec != "float32") {
    return InvalidArgument(
        Str("[wire] down-codec is ", wire.down_codec,
            ", whose rounding whole updates would carry into the global adapter; "
            "set delta = true, or leave down-codec out"));
  }
  if (wire.top_k == 1) return OkStatus();
  return InvalidArgument(Str("[wire] top-k is ", wire.top_k,
                             ", but the largest elements of a whole adapter are no update; set "
                             "delta = true, or leave top-k out"));
}

}  // namespace

Status CheckRun(const Settings& settings) {
  WEFT_TRY(CheckStrategySettings(settings.strategy, settings.train));
  WEFT_TRY(CheckStaleness(settings.strategy, settings.cohort));
  WEFT_TRY(CheckWire(settings.wire));
  WEFT_TRY(CheckMethods(settings));
  WEFT_TRY(CheckRanks(settings));
  return CheckTraining(settings.train);
}

}  // namespace weft::cli
