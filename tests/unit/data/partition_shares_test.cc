// Partitions drawn at random: whatever the rows and the clients, every row is dealt once, and the
// parts are as uneven as they were asked to be.

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/data/partition.h"

namespace weft {
namespace {

using Parts = std::vector<std::vector<size_t>>;

std::vector<Row> RowsWithValues(const std::vector<std::string>& values) {
  std::vector<Row> rows;
  for (const std::string& value : values) {
    Row row;
    row.kind = RowKind::kText;
    row.completion = "text";
    row.fields = {{"speaker", value}};
    row.line = rows.size() + 1;
    rows.push_back(std::move(row));
  }
  return rows;
}

// `count` rows over `kinds` values of unequal frequency, in random order.
std::vector<Row> DrawnRows(RandomStream& draw, size_t count, size_t kinds) {
  std::vector<std::string> values;
  for (size_t i = 0; i < count; ++i) {
    // The smaller of two draws: small numbers are more frequent; each value occurs at least once.
    const uint64_t value = i < kinds ? i : std::min(draw.Below(kinds), draw.Below(kinds));
    values.push_back("value " + std::to_string(value));
  }
  std::vector<std::string> mixed;
  for (const size_t i : draw.Permutation(count)) mixed.push_back(values[i]);
  return RowsWithValues(mixed);
}

Parts Deal(const std::vector<Row>& rows, const PartitionOptions& options) {
  Result<Parts> parts = Partition(rows, options);
  EXPECT_TRUE(parts.ok()) << options.kind << ": " << parts.status();
  return parts.ok() ? *parts : Parts{};
}

TEST(PartitionSharesTest, EveryRowOfDrawnDataIsDealtOnceAndTheSameWayAgain) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    RandomStream draw = RandomStream::Derive(seed, {"partition-shares"});
    const size_t clients = 1 + draw.Below(12);
    const size_t kinds = clients + draw.Below(6);
    const size_t count = kinds + draw.Below(200);
    const std::vector<Row> rows = DrawnRows(draw, count, kinds);
    for (const char* kind : {"iid", "round-robin", "dirichlet", "field", "shard", "size"}) {
      const PartitionOptions options = {
          .kind = kind,
          .clients = static_cast<int64_t>(clients),
          .seed = seed,
          .field = draw.Below(2) == 0 || std::string(kind) != "shard" ? "speaker" : "",
          .dirichlet_alpha = 0.01 + 3 * draw.Uniform(),
          .shards_per_client = 1 + static_cast<int64_t>(draw.Below(4))};
      SCOPED_TRACE(Str(kind, " seed ", seed, ": ", count, " rows, ", clients, " clients"));
      const Parts parts = Deal(rows, options);
      ASSERT_EQ(parts.size(), clients);
      std::vector<size_t> all;
      for (const std::vector<size_t>& part : parts) {
        EXPECT_FALSE(part.empty());
        EXPECT_TRUE(std::is_sorted(part.begin(), part.end()));
        all.insert(all.end(), part.begin(), part.end());
      }
      std::sort(all.begin(), all.end());
      std::vector<size_t> wanted(count);
      std::iota(wanted.begin(), wanted.end(), size_t{0});
      EXPECT_EQ(all, wanted);
      EXPECT_EQ(Deal(rows, options), parts);
    }
  }
}

TEST(PartitionSharesTest, DirichletSharesHaveTheMeanAndVarianceOfTheDistribution) {
  // A client's share of one value's rows: mean 1/K, variance (K − 1) / (K²(Kα + 1)).
  const std::vector<Row> rows = RowsWithValues(std::vector<std::string>(400, "only"));
  constexpr int64_t kClients = 4;
  constexpr int kSeeds = 400;
  for (const double alpha : {0.1, 0.5, 5.0}) {
    double sum = 0, squares = 0;
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      const Parts parts = Deal(rows, {.kind = "dirichlet",
                                      .clients = kClients,
                                      .seed = seed,
                                      .field = "speaker",
                                      .dirichlet_alpha = alpha});
      const double share = static_cast<double>(parts[2].size()) / 400;
      sum += share;
      squares += share * share;
    }
    const double mean = sum / kSeeds;
    const double variance = squares / kSeeds - mean * mean;
    const double wanted = 3.0 / (16 * (4 * alpha + 1));
    EXPECT_NEAR(mean, 0.25, 4 * std::sqrt(wanted / kSeeds)) << alpha;
    // Rounding to rows and the row that no part goes without cost little against this.
    EXPECT_NEAR(variance, wanted, 0.25 * wanted) << alpha;
  }
}

TEST(PartitionSharesTest, DirichletValuesAreSplitIndependently) {
  // With a small alpha the clients that hold most of each value differ from value to value.
  std::vector<std::string> values;
  for (int i = 0; i < 600; ++i) values.push_back("v" + std::to_string(i % 6));
  const std::vector<Row> rows = RowsWithValues(values);
  const Parts parts = Deal(
      rows,
      {.kind = "dirichlet", .clients = 5, .seed = 3, .field = "speaker", .dirichlet_alpha = 0.05});
  std::map<std::string, std::pair<size_t, size_t>> most;  // value → (rows, client)
  for (size_t k = 0; k < parts.size(); ++k) {
    std::map<std::string, size_t> counts;
    for (const size_t i : parts[k]) ++counts[values[i]];
    for (const auto& [value, count] : counts) most[value] = std::max(most[value], {count, k});
  }
  std::set<size_t> owners;
  for (const auto& [value, best] : most) owners.insert(best.second);
  EXPECT_GT(owners.size(), 1u);
}

TEST(PartitionSharesTest, FieldPartsDifferByAtMostTheLargestValue) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RandomStream draw = RandomStream::Derive(seed, {"field-parts"});
    const std::vector<Row> rows = DrawnRows(draw, 300, 25);
    std::map<std::string, size_t> counts;
    for (const Row& row : rows) ++counts[std::string(*row.Field("speaker"))];
    size_t largest = 0;
    for (const auto& [value, count] : counts) largest = std::max(largest, count);
    const Parts parts = Deal(rows, {.kind = "field", .clients = 4, .field = "speaker"});
    std::map<std::string, std::set<size_t>> owners;
    size_t least = rows.size(), most = 0;
    for (size_t k = 0; k < parts.size(); ++k) {
      least = std::min(least, parts[k].size());
      most = std::max(most, parts[k].size());
      for (const size_t i : parts[k]) owners[std::string(*rows[i].Field("speaker"))].insert(k);
    }
    EXPECT_LE(most - least, largest) << seed;
    for (const auto& [value, clients] : owners) EXPECT_EQ(clients.size(), 1u) << value;
  }
}

TEST(PartitionSharesTest, AClientsShardsHoldFewValues) {
  // Ten values of 60 rows, sorted and cut into 20 shards of 30: no shard holds two values.
  std::vector<std::string> values;
  for (int i = 0; i < 600; ++i) values.push_back("v" + std::to_string(i % 10));
  const std::vector<Row> rows = RowsWithValues(values);
  const Parts parts =
      Deal(rows,
           {.kind = "shard", .clients = 10, .seed = 8, .field = "speaker", .shards_per_client = 2});
  size_t mixed = 0;
  for (const std::vector<size_t>& part : parts) {
    std::set<std::string> seen;
    for (const size_t i : part) seen.insert(values[i]);
    EXPECT_LE(seen.size(), 2u);
    EXPECT_EQ(part.size(), 60u);
    mixed += seen.size() == 2;
  }
  EXPECT_GT(mixed, 0u) << "shards are dealt at random, not kept together";
}

TEST(PartitionSharesTest, WithoutAFieldShardsAreStretchesOfTheFile) {
  const std::vector<Row> rows = RowsWithValues(std::vector<std::string>(40, "x"));
  const Parts parts =
      Deal(rows, {.kind = "shard", .clients = 4, .seed = 2, .shards_per_client = 1});
  std::set<size_t> starts;
  for (const std::vector<size_t>& part : parts) {
    EXPECT_EQ(part.back() - part.front() + 1, part.size());
    starts.insert(part.front());
  }
  EXPECT_EQ(starts, (std::set<size_t>{0, 10, 20, 30}));
}

TEST(PartitionSharesTest, SizesAreProportionalToTheClientsNumber) {
  for (const int64_t clients : {2, 5, 9}) {
    const std::vector<Row> rows = RowsWithValues(std::vector<std::string>(500, "x"));
    const Parts parts = Deal(rows, {.kind = "size", .clients = clients, .seed = 4});
    const double unit = 500.0 * 2 / static_cast<double>(clients * (clients + 1));
    for (size_t k = 0; k < parts.size(); ++k) {
      EXPECT_NEAR(static_cast<double>(parts[k].size()), unit * static_cast<double>(k + 1), 1.0);
    }
  }
}

TEST(PartitionSharesTest, ShuffledKindsDoNotDealStretchesOfTheFile) {
  const std::vector<Row> rows = RowsWithValues(std::vector<std::string>(200, "x"));
  for (const char* kind : {"iid", "size"}) {
    const Parts parts = Deal(rows, {.kind = kind, .clients = 2, .seed = 1});
    for (const std::vector<size_t>& part : parts) {
      EXPECT_GT(part.back() - part.front(), 150u) << kind;
    }
  }
}

TEST(PartitionSharesTest, DirichletMixesTheRowsOfAValueBeforeItDealsThem) {
  const std::vector<Row> rows = RowsWithValues(std::vector<std::string>(200, "x"));
  PartitionOptions options{.kind = "dirichlet", .clients = 2, .seed = 1, .field = "speaker"};
  options.dirichlet_alpha = 1000;  // about half each
  for (const std::vector<size_t>& part : Deal(rows, options)) {
    EXPECT_GT(part.back() - part.front(), 150u);
  }
}

TEST(PartitionSharesTest, AsManyClientsAsRowsGetOneEach) {
  std::vector<std::string> values;
  for (int i = 0; i < 9; ++i) values.push_back("v" + std::to_string(i));
  const std::vector<Row> rows = RowsWithValues(values);
  for (const char* kind : {"iid", "round-robin", "dirichlet", "field", "shard", "size"}) {
    for (const std::vector<size_t>& part :
         Deal(rows, {.kind = kind, .clients = 9, .seed = 5, .field = "speaker"})) {
      EXPECT_EQ(part.size(), 1u) << kind;
    }
  }
}

}  // namespace
}  // namespace weft
