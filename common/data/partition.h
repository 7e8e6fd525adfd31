#pragma once
// Deals one data set out to virtual clients. Every row lands in exactly one part; the same rows,
// options and seed give the same parts. Stateless.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/formats/jsonl_rows.h"

namespace weft {

struct PartitionOptions {
  std::string kind = "iid";
  int64_t clients = 0;
  uint64_t seed = 1;
  std::string field = {};        // for "dirichlet" and "field"; "shard" sorts by it if given
  double dirichlet_alpha = 0.5;  // small: each client sees few of the field's values
  int64_t shards_per_client = 2;
};

/// Row indices of each client, ascending.
///   iid          shuffled, then cut into parts whose sizes differ by at most one
///   round-robin  row i to client i mod clients
///   dirichlet    the rows of each field value are split in proportions drawn from a symmetric
///                Dirichlet distribution (Hsu, Qi, Brown 2019)
///   field        all rows of a value to one client; the largest values first, each to the client
///                with the fewest rows
///   shard        sorted, cut into clients × shards_per_client pieces, dealt at random (McMahan et
///                al. 2017)
///   size         shuffled; client i gets a share proportional to i + 1
/// No part is empty: where chance leaves one so, it gets a row of the largest. kInvalidArgument:
/// unknown kind, fewer rows (or field values) than clients, a row without the field.
[[nodiscard]] Result<std::vector<std::vector<size_t>>> Partition(std::span<const Row> rows,
                                                                 const PartitionOptions& options);

}  // namespace weft
