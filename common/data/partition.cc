#include "common/data/partition.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

#include "common/base/random.h"
#include "common/base/str.h"

namespace weft {
namespace {

using Parts = std::vector<std::vector<size_t>>;

struct Task {
  std::span<const Row> rows;
  const PartitionOptions& options;
  size_t clients;
  RandomStream stream;
};

// Cuts `order` into consecutive pieces of the given shares (which sum to 1), by cumulative
// rounding.
void DealByShares(std::span<const size_t> order, std::span<const double> shares, Parts& parts) {
  double cumulative = 0;
  size_t begin = 0;
  for (size_t k = 0; k < shares.size(); ++k) {
    cumulative += shares[k];
    const auto target =
        static_cast<size_t>(std::llround(cumulative * static_cast<double>(order.size())));
    const size_t end =
        k + 1 == shares.size() ? order.size() : std::clamp(target, begin, order.size());
    parts[k].insert(parts[k].end(), order.begin() + static_cast<std::ptrdiff_t>(begin),
                    order.begin() + static_cast<std::ptrdiff_t>(end));
    begin = end;
  }
}

Result<std::map<std::string, std::vector<size_t>>> ByValue(const Task& task) {
  const std::string& field = task.options.field;
  if (field.empty()) {
    return InvalidArgument("[data] partition \"" + task.options.kind + "\" needs a field's name");
  }
  std::map<std::string, std::vector<size_t>> values;
  for (size_t i = 0; i < task.rows.size(); ++i) {
    const auto value = task.rows[i].Field(field);
    if (!value) {
      return InvalidArgument(
          Str("[data] line ", task.rows[i].line, ": no field \"", field, "\" to partition by"));
    }
    values[std::string(*value)].push_back(i);
  }
  return values;
}

Result<Parts> Iid(Task& task) {
  Parts parts(task.clients);
  const std::vector<size_t> order = task.stream.Permutation(task.rows.size());
  for (size_t i = 0; i < order.size(); ++i) parts[i % task.clients].push_back(order[i]);
  return parts;
}

Result<Parts> RoundRobin(Task& task) {
  Parts parts(task.clients);
  for (size_t i = 0; i < task.rows.size(); ++i) parts[i % task.clients].push_back(i);
  return parts;
}

Result<Parts> Dirichlet(Task& task) {
  if (!(task.options.dirichlet_alpha > 0) || !std::isfinite(task.options.dirichlet_alpha)) {
    return InvalidArgument(Str("[data] dirichlet_alpha is ", task.options.dirichlet_alpha,
                               ", wanted a positive number"));
  }
  WEFT_TRY_ASSIGN(const auto values, ByValue(task));
  Parts parts(task.clients);
  for (const auto& [value, members] : values) {
    std::vector<double> shares(task.clients);
    for (double& share : shares) share = task.stream.Gamma(task.options.dirichlet_alpha);
    const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
    if (total > 0) {
      for (double& share : shares) share /= total;
    } else {  // all draws underflowed: alpha is tiny, one client takes the value
      shares[task.stream.Below(task.clients)] = 1;
    }
    std::vector<size_t> order;
    for (const size_t i : task.stream.Permutation(members.size())) order.push_back(members[i]);
    DealByShares(order, shares, parts);
  }
  return parts;
}

Result<Parts> Field(Task& task) {
  WEFT_TRY_ASSIGN(const auto values, ByValue(task));
  if (values.size() < task.clients) {
    return InvalidArgument(Str("[data] field \"", task.options.field, "\" has ", values.size(),
                               " values, fewer than the ", task.clients, " clients"));
  }
  std::vector<const std::vector<size_t>*> groups;
  for (const auto& [value, members] : values) groups.push_back(&members);
  std::stable_sort(groups.begin(), groups.end(),
                   [](const auto* a, const auto* b) { return a->size() > b->size(); });
  Parts parts(task.clients);
  for (const auto* group : groups) {
    auto& least = *std::min_element(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
      return a.size() < b.size();
    });
    least.insert(least.end(), group->begin(), group->end());
  }
  return parts;
}

Result<Parts> Shard(Task& task) {
  if (task.options.shards_per_client < 1) {
    return InvalidArgument(
        Str("[data] shards_per_client is ", task.options.shards_per_client, ", wanted 1 or more"));
  }
  std::vector<size_t> order;
  if (task.options.field.empty()) {
    order.resize(task.rows.size());
    std::iota(order.begin(), order.end(), size_t{0});
  } else {
    WEFT_TRY_ASSIGN(const auto values, ByValue(task));
    for (const auto& [value, members] : values) {
      order.insert(order.end(), members.begin(), members.end());
    }
  }
  const size_t shards = task.clients * static_cast<size_t>(task.options.shards_per_client);
  Parts pieces(shards);
  DealByShares(order, std::vector<double>(shards, 1.0 / static_cast<double>(shards)), pieces);
  Parts parts(task.clients);
  const std::vector<size_t> deal = task.stream.Permutation(shards);
  for (size_t i = 0; i < shards; ++i) {
    const std::vector<size_t>& piece = pieces[deal[i]];
    parts[i % task.clients].insert(parts[i % task.clients].end(), piece.begin(), piece.end());
  }
  return parts;
}

Result<Parts> Size(Task& task) {
  const auto n = static_cast<double>(task.clients);
  std::vector<double> shares(task.clients);
  for (size_t k = 0; k < task.clients; ++k) {
    shares[k] = static_cast<double>(k + 1) / (n * (n + 1) / 2);
  }
  Parts parts(task.clients);
  DealByShares(task.stream.Permutation(task.rows.size()), shares, parts);
  return parts;
}

struct Kind {
  std::string_view name;
  Result<Parts> (*deal)(Task& task);
};
constexpr std::array kKinds = {Kind{"iid", Iid},     Kind{"round-robin", RoundRobin},
                               Kind{"field", Field}, Kind{"dirichlet", Dirichlet},
                               Kind{"shard", Shard}, Kind{"size", Size}};

void FillEmptyParts(Parts& parts) {
  for (auto& part : parts) {
    if (!part.empty()) continue;
    auto& largest = *std::max_element(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
      return a.size() < b.size();
    });
    part.push_back(largest.back());
    largest.pop_back();
  }
}

}  // namespace

Result<Parts> Partition(std::span<const Row> rows, const PartitionOptions& options) {
  if (options.clients < 1 || static_cast<size_t>(options.clients) > rows.size()) {
    return InvalidArgument(Str("[data] ", rows.size(), " rows for ", options.clients,
                               " clients; wanted at least one row each"));
  }
  std::string known;
  for (const Kind& kind : kKinds) {
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
    if (kind.name != options.kind) continue;
    Task task{rows, options, static_cast<size_t>(options.clients),
              RandomStream::Derive(options.seed, {"partition", options.kind})};
    WEFT_TRY_ASSIGN(Parts parts, kind.deal(task));
    FillEmptyParts(parts);
    for (auto& part : parts) std::sort(part.begin(), part.end());
    return parts;
  }
  return InvalidArgument(Str("[data] partition \"", options.kind, "\" is unknown; known: ", known));
}

}  // namespace weft
