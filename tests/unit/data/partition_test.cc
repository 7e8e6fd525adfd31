#include "common/data/partition.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

namespace weft {
namespace {

// 120 rows, field "topic" with values a (60), b (40), c (20).
std::vector<Row> Rows() {
  std::vector<Row> rows;
  for (int i = 0; i < 120; ++i) {
    Row row;
    row.kind = RowKind::kText;
    row.completion = "row";
    row.fields = {{"topic", i % 6 < 3 ? "a" : (i % 6 < 5 ? "b" : "c")}};
    row.line = static_cast<uint64_t>(i) + 1;
    rows.push_back(std::move(row));
  }
  return rows;
}

using Parts = std::vector<std::vector<size_t>>;

Parts Deal(const PartitionOptions& options) {
  const std::vector<Row> rows = Rows();
  Result<Parts> parts = Partition(rows, options);
  EXPECT_TRUE(parts.ok()) << options.kind << parts.status();
  return parts.ok() ? *parts : Parts{};
}

constexpr const char* kAllKinds[] = {"iid", "round-robin", "dirichlet", "field", "shard", "size"};

TEST(PartitionTest, EveryRowIsInExactlyOnePartOfEveryKind) {
  for (const char* kind : kAllKinds) {
    for (const int64_t clients : {1, 2, 3}) {
      const Parts parts = Deal({.kind = kind, .clients = clients, .seed = 4, .field = "topic"});
      std::multiset<size_t> seen;
      for (const auto& part : parts) {
        EXPECT_FALSE(part.empty()) << kind;
        EXPECT_TRUE(std::is_sorted(part.begin(), part.end())) << kind;
        seen.insert(part.begin(), part.end());
      }
      EXPECT_EQ(static_cast<int64_t>(parts.size()), clients);
      EXPECT_EQ(seen.size(), 120u) << kind;
      EXPECT_EQ(std::set<size_t>(seen.begin(), seen.end()).size(), 120u) << kind;
    }
  }
}

TEST(PartitionTest, SameSeedSamePartsAndAnotherSeedOthers) {
  for (const char* kind : {"iid", "dirichlet", "shard", "size"}) {
    const PartitionOptions options = {.kind = kind, .clients = 3, .seed = 4, .field = "topic"};
    EXPECT_EQ(Deal(options), Deal(options)) << kind;
    PartitionOptions other = options;
    other.seed = 5;
    EXPECT_NE(Deal(options), Deal(other)) << kind;
  }
}

TEST(PartitionTest, IidSizesDifferByAtMostOne) {
  const Parts parts = Deal({.kind = "iid", .clients = 7});
  for (const auto& part : parts) {
    EXPECT_GE(part.size(), 17u);
    EXPECT_LE(part.size(), 18u);
  }
}

TEST(PartitionTest, FieldKeepsAValueTogether) {
  const std::vector<Row> rows = Rows();
  std::map<std::string, std::set<size_t>> owners;
  const Parts parts = Deal({.kind = "field", .clients = 2, .field = "topic"});
  for (size_t k = 0; k < parts.size(); ++k) {
    for (const size_t i : parts[k]) owners[std::string(*rows[i].Field("topic"))].insert(k);
  }
  for (const auto& [value, clients] : owners) EXPECT_EQ(clients.size(), 1u) << value;
  EXPECT_EQ(parts[0].size(), 60u);  // a | b, c
}

TEST(PartitionTest, SmallDirichletAlphaMakesClientsDiffer) {
  const std::vector<Row> rows = Rows();
  const auto spread = [&](double alpha) {  // mean over clients of the largest value's share
    double total = 0;
    const Parts parts = Deal(
        {.kind = "dirichlet", .clients = 4, .seed = 9, .field = "topic", .dirichlet_alpha = alpha});
    for (const auto& part : parts) {
      std::map<std::string, double> counts;
      for (const size_t i : part) ++counts[std::string(*rows[i].Field("topic"))];
      double most = 0;
      for (const auto& [value, count] : counts) most = std::max(most, count);
      total += most / static_cast<double>(part.size());
    }
    return total / 4;
  };
  EXPECT_LT(spread(1000), 0.6);  // near the mixture's own 0.5
  EXPECT_GT(spread(0.05), 0.7);
}

TEST(PartitionTest, TinyDirichletAlphaStillDealsEveryRow) {
  const Parts parts =
      Deal({.kind = "dirichlet", .clients = 10, .field = "topic", .dirichlet_alpha = 1e-6});
  size_t total = 0;
  for (const auto& part : parts) {
    EXPECT_FALSE(part.empty());
    total += part.size();
  }
  EXPECT_EQ(total, 120u);
}

TEST(PartitionTest, SizesGrowLinearly) {
  const Parts parts = Deal({.kind = "size", .clients = 3});
  EXPECT_EQ(parts[0].size(), 20u);
  EXPECT_EQ(parts[1].size(), 40u);
  EXPECT_EQ(parts[2].size(), 60u);
}

TEST(PartitionTest, ShardsOfASortedFieldHoldFewValues) {
  const std::vector<Row> rows = Rows();
  const Parts parts =
      Deal({.kind = "shard", .clients = 6, .field = "topic", .shards_per_client = 1});
  size_t single = 0;
  for (const auto& part : parts) {
    std::set<std::string> values;
    for (const size_t i : part) values.insert(std::string(*rows[i].Field("topic")));
    single += values.size() == 1;
  }
  EXPECT_EQ(single, 6u);  // 60, 40, 20 rows fall on borders of 20
}

TEST(PartitionTest, WhatCannotBeDealtIsRefused) {
  const std::vector<Row> rows = Rows();
  const auto code = [&](const PartitionOptions& options) {
    return Partition(rows, options).status().code();
  };
  EXPECT_EQ(code({.kind = "iid", .clients = 0}), Code::kInvalidArgument);
  EXPECT_EQ(code({.kind = "iid", .clients = 121}), Code::kInvalidArgument);
  EXPECT_EQ(code({.kind = "zipf", .clients = 2}), Code::kInvalidArgument);
  EXPECT_EQ(code({.kind = "field", .clients = 4, .field = "topic"}), Code::kInvalidArgument);
  EXPECT_EQ(code({.kind = "field", .clients = 2}), Code::kInvalidArgument);
  EXPECT_EQ(code({.kind = "dirichlet", .clients = 2, .field = "speaker"}), Code::kInvalidArgument);
  EXPECT_EQ(code({.kind = "dirichlet", .clients = 2, .field = "topic", .dirichlet_alpha = 0}),
            Code::kInvalidArgument);
  EXPECT_EQ(code({.kind = "shard", .clients = 2, .shards_per_client = 0}), Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft
