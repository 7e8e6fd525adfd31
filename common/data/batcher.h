#pragma once
// Batcher: which rows make the next optimiser batch. An endless stream over a fixed number of rows,
// whose position can be saved and restored; owns no rows. One thread.

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/random.h"
#include "common/base/result.h"

namespace weft {

class Batcher {
 public:
  struct Options {
    size_t num_rows = 0;
    int64_t batch_size = 8;
    std::string row_order = "shuffle";  // each pass over the rows in an order of its own; "file"
    uint64_t seed = 1;                  // the orders depend on seed, client, round and pass
    std::string client = {};
    uint64_t round = 0;
  };

  /// What has been handed out: whole passes, and rows of the present one.
  struct Position {
    uint64_t pass = 0;
    uint64_t row = 0;
    friend bool operator==(const Position&, const Position&) = default;
  };

  /// kInvalidArgument: no rows, a batch size below 1, an unknown order.
  [[nodiscard]] static Result<Batcher> Make(Options options);

  /// The next batch_size rows; a batch may reach into the next pass and then holds a row twice
  /// where there are fewer rows than it wants.
  [[nodiscard]] std::vector<size_t> Next();
  /// The same, but ends with the pass: the last batch of a pass may be smaller.
  [[nodiscard]] std::vector<size_t> NextOfPass();

  [[nodiscard]] Position Save() const { return position_; }
  /// kInvalidArgument for a position beyond the rows (the data changed since).
  [[nodiscard]] Status Restore(const Position& position);

  /// Batches that NextOfPass cuts one pass into.
  [[nodiscard]] int64_t batches_per_pass() const;

 private:
  explicit Batcher(Options options);
  void StartPass();
  [[nodiscard]] std::vector<size_t> Take(size_t count);

  Options options_;
  Position position_;
  std::vector<size_t> order_;  // of the present pass
};

}  // namespace weft
