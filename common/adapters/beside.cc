#include "common/adapters/beside.h"

#include <algorithm>

#include "common/adapters/adapter.h"
#include "common/adapters/peft_io.h"

namespace weft {

LowRankAdapter SideBySide(const LowRankAdapter& a, const LowRankAdapter& b) {
  LowRankAdapter both = a;
  for (const LowRankSite& site : b) {
    const auto at = std::find_if(both.begin(), both.end(), [&](const LowRankSite& known) {
      return known.site.path == site.site.path;
    });
    if (at == both.end()) {
      both.push_back(site);
      continue;
    }
    at->factors = {at::cat({at->factors.A_RI, site.factors.A_RI}, 0),
                   at::cat({at->factors.B_OR, site.factors.B_OR}, 1)};
  }
  return both;
}

Result<AdapterState> WithBaseChange(const AdapterState& adapter,
                                    const std::optional<AdapterState>& change) {
  if (!change) return adapter;
  WEFT_TRY_ASSIGN(const LowRankAdapter lowered, Lower(adapter));
  WEFT_TRY_ASSIGN(const LowRankAdapter taken, Lower(*change));
  AdapterState whole = LoraFromFactors(adapter.spec, SideBySide(lowered, taken));
  whole.dense = adapter.dense;
  return whole;
}

}  // namespace weft
