#pragma once
// The virtual clients of a simulation: partitions of one data set, or the [[client]] tables.

#include <memory>
#include <vector>

#include "client/load_site.h"
#include "common/config/settings.h"

namespace weft::sim {

struct VirtualClient {
  std::shared_ptr<Site> site;
  int64_t rank = 0;
};

struct Population {
  std::vector<VirtualClient> clients;  // by name
  std::vector<Row> evaluation;         // first [sim] eval-rows of the data, or [evaluate] data
};

[[nodiscard]] Result<Population> MakePopulation(const Settings& settings, const SharedBase& shared);

}  // namespace weft::sim
