#include "common/data/batcher.h"

#include <algorithm>
#include <numeric>

#include "common/base/str.h"

namespace weft {

Result<Batcher> Batcher::Make(Options options) {
  if (options.num_rows == 0) return InvalidArgument("[data] no rows to make batches of");
  if (options.batch_size < 1) {
    return InvalidArgument(Str("[data] batch size is ", options.batch_size, ", wanted 1 or more"));
  }
  if (options.row_order != "shuffle" && options.row_order != "file") {
    return InvalidArgument(
        Str("[data] row_order is \"", options.row_order, "\", wanted \"shuffle\" or \"file\""));
  }
  return Batcher(std::move(options));
}

Batcher::Batcher(Options options) : options_(std::move(options)) { StartPass(); }

void Batcher::StartPass() {
  if (options_.row_order == "file") {
    order_.resize(options_.num_rows);
    std::iota(order_.begin(), order_.end(), size_t{0});
    return;
  }
  RandomStream stream = RandomStream::Derive(
      options_.seed,
      {"rows", options_.client, std::to_string(options_.round), std::to_string(position_.pass)});
  order_ = stream.Permutation(options_.num_rows);
}

std::vector<size_t> Batcher::Take(size_t count) {
  std::vector<size_t> rows;
  while (rows.size() < count) {
    if (position_.row == order_.size()) {
      ++position_.pass;
      position_.row = 0;
      StartPass();
    }
    const size_t take = std::min(count - rows.size(), order_.size() - position_.row);
    const auto begin = order_.begin() + static_cast<std::ptrdiff_t>(position_.row);
    rows.insert(rows.end(), begin, begin + static_cast<std::ptrdiff_t>(take));
    position_.row += take;
  }
  return rows;
}

std::vector<size_t> Batcher::Next() { return Take(static_cast<size_t>(options_.batch_size)); }

std::vector<size_t> Batcher::NextOfPass() {
  const size_t left =
      position_.row == order_.size() ? order_.size() : order_.size() - position_.row;
  return Take(std::min(static_cast<size_t>(options_.batch_size), left));
}

Status Batcher::Restore(const Position& position) {
  if (position.row > options_.num_rows) {
    return InvalidArgument(Str("[data] the saved position is row ", position.row, " of ",
                               options_.num_rows, "; the data changed since"));
  }
  position_ = position;
  StartPass();
  return OkStatus();
}

int64_t Batcher::batches_per_pass() const {
  const auto rows = static_cast<int64_t>(options_.num_rows);
  return (rows + options_.batch_size - 1) / options_.batch_size;
}

}  // namespace weft
