#pragma once
// The virtual clients of a simulation: partitions of one data set, or the [[client]] tables.

#include <memory>
#include <string>
#include <vector>

#include "client/load_site.h"
#include "common/config/settings.h"

namespace weft::sim {

struct VirtualClient {
  std::shared_ptr<Site> site;
  int64_t rank = 0;
  std::string method = "";  // empty: the run's
};

struct Population {
  std::vector<VirtualClient> clients;  // by name
  std::vector<Row> evaluation;         // first [sim] eval-rows of the data, or [evaluate] data
};

/// Tokens of the longest row that any of the clients trains on, at most `max_len`. Tokenizes what
/// the rounds would, on all cores; the sites keep it. A site whose rows cannot be used counts for
/// nothing: it says so when it is asked to train.
[[nodiscard]] int64_t LongestRow(const Population& population, int64_t max_len,
                                 const std::string& long_rows);

[[nodiscard]] Result<Population> MakePopulation(const Settings& settings, const SharedBase& shared);

}  // namespace weft::sim
