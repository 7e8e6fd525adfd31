#include "sim/sites.h"

#include <algorithm>
#include <charconv>
#include <iomanip>
#include <iterator>
#include <sstream>
#include <utility>

#include <ATen/Parallel.h>

#include "common/data/partition.h"
#include "common/formats/jsonl_rows.h"

namespace weft::sim {
namespace {

// "client-007": padded, so that the order of names is the order of numbers.
std::string NumberedName(int64_t index, int64_t count) {
  std::ostringstream name;
  const int width = static_cast<int>(std::to_string(count - 1).size());
  name << "client-" << std::setw(width) << std::setfill('0') << index;
  return name.str();
}

int64_t RankOf(const ClientSettings& client, const AdapterSpec& adapter) {
  int64_t rank = 0;
  const char* end = client.rank.data() + client.rank.size();
  const auto parsed = std::from_chars(client.rank.data(), end, rank);
  return parsed.ec == std::errc() && parsed.ptr == end ? rank : adapter.rank;  // "auto"
}

Result<std::vector<VirtualClient>> Deal(const Settings& settings, const SharedBase& shared,
                                        const std::vector<Row>& rows) {
  const SimSettings& sim = settings.sim;
  PartitionOptions options;
  options.kind = sim.partition;
  options.clients = sim.clients;
  options.seed = settings.run.seed;
  options.field = sim.field;
  options.dirichlet_alpha = sim.dirichlet_alpha;
  options.shards_per_client = sim.shards_per_client;
  WEFT_TRY_ASSIGN(const auto parts, Partition(rows, options));
  std::vector<VirtualClient> clients;
  for (size_t i = 0; i < parts.size(); ++i) {
    std::vector<Row> own;
    own.reserve(parts[i].size());
    for (const size_t row : parts[i]) own.push_back(rows[row]);
    const ClientId name{NumberedName(static_cast<int64_t>(i), sim.clients)};
    const int64_t rank =
        sim.ranks.empty() ? settings.adapter.rank : sim.ranks[i % sim.ranks.size()];
    const std::string method = sim.methods.empty() ? "" : sim.methods[i % sim.methods.size()];
    clients.push_back({MakeSite(name, shared, std::move(own), {}), rank, method});
  }
  return clients;
}

Result<std::vector<VirtualClient>> FromTables(const Settings& settings, const SharedBase& shared) {
  std::vector<VirtualClient> clients;
  for (const ClientSettings& client : settings.clients) {
    WEFT_TRY_ASSIGN(std::shared_ptr<Site> site, LoadSite(client, shared));
    clients.push_back({std::move(site), RankOf(client, settings.adapter), client.method});
  }
  std::sort(clients.begin(), clients.end(), [](const VirtualClient& a, const VirtualClient& b) {
    return a.site->client() < b.site->client();
  });
  return clients;
}

}  // namespace

int64_t LongestRow(const Population& population, int64_t max_len, const std::string& long_rows) {
  const auto clients = static_cast<int64_t>(population.clients.size());
  std::vector<size_t> longest(population.clients.size());
  at::parallel_for(0, clients, 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const auto tokens =
          population.clients[i].site->Tokens(Site::Split::kTrain, max_len, long_rows);
      if (!tokens.ok()) continue;
      for (const TokenRow& row : (*tokens)->rows) longest[i] = std::max(longest[i], row.ids.size());
    }
  });
  return longest.empty() ? 0
                         : static_cast<int64_t>(*std::max_element(longest.begin(), longest.end()));
}

Result<Population> MakePopulation(const Settings& settings, const SharedBase& shared) {
  const SimSettings& sim = settings.sim;
  Population population;
  if (sim.clients == 0) {
    if (settings.clients.empty()) {
      return InvalidArgument(
          "[sim] got no clients: give [[client]] tables, or [sim] clients and data (--clients, "
          "--data)");
    }
    WEFT_TRY_ASSIGN(population.clients, FromTables(settings, shared));
  } else {
    if (sim.data.empty()) {
      return InvalidArgument("[sim] data: got none, wanted a JSONL file to deal out (--data)");
    }
    WEFT_TRY_ASSIGN(std::vector<Row> rows, ReadRows(sim.data));
    const auto held = static_cast<std::ptrdiff_t>(
        std::min<uint64_t>(static_cast<uint64_t>(sim.eval_rows), rows.size()));
    std::move(rows.begin(), rows.begin() + held, std::back_inserter(population.evaluation));
    rows.erase(rows.begin(), rows.begin() + held);
    WEFT_TRY_ASSIGN(population.clients, Deal(settings, shared, rows));
  }
  if (!settings.evaluate.data.empty()) {
    WEFT_TRY_ASSIGN(
        population.evaluation,
        ReadRows(settings.evaluate.data, static_cast<uint64_t>(settings.evaluate.max_rows)));
  }
  return population;
}

}  // namespace weft::sim
