#include "cli/check_run.h"

#include "aggregator/strategies/strategy.h"
#include "client/schedule.h"
#include "common/adapters/adapter.h"
#include "common/codec/codec.h"

namespace weft::cli {

Status CheckRun(const Settings& settings) {
  WEFT_TRY(CheckStrategySettings(settings.strategy, settings.train));
  WEFT_TRY(FindCodec(settings.codec).status());
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(settings.adapter.method));
  WEFT_TRY(method->CheckSpec(settings.adapter));
  return CheckTraining(settings.train);
}

}  // namespace weft::cli
