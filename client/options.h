#pragma once
// ClientOptions: what a client is told at its construction, whatever the world.

#include "common/base/ids.h"
#include "common/plan/base_description.h"
#include "common/plan/round_plan.h"
#include "common/runtime/clock.h"

namespace weft {

struct ClientOptions {
  ClientId name;
  BaseDescription base;
  Capabilities offer;
  Nanos gone_after = Seconds(20);  // silence of the aggregator before its Welcome says otherwise
  Nanos backoff_first = Seconds(0.5);  // between attempts to (re)join, doubled each time …
  Nanos backoff_max = Seconds(15);     // … up to this, each drawn from [½, 1]·backoff
  Nanos step_cost{0};  // modelled time of one optimiser step, for simulation; production: 0
};

}  // namespace weft
