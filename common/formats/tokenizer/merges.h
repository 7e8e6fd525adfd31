#pragma once
// MergeTable: which pair of tokens becomes which, and when: BPE's merges as one flat hash table,
// read by every pair of neighbours of every word. Constant after the last Insert; any thread.

#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

namespace weft {

class MergeTable {
 public:
  static constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();
  struct Merge {
    uint32_t rank = kNever;  // lower goes first
    int32_t into = 0;
  };

  explicit MergeTable(size_t merges = 0)
      : slots_(std::bit_ceil(2 * merges + 2)), shift_(64 - std::countr_zero(slots_.size())) {}

  /// A pair that is there already gets the later rank, as the order of a file's lines has it. No
  /// more pairs than the constructor was told.
  void Insert(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[Place(Key(left, right))];
    slot = {Key(left, right), merge};
  }

  [[nodiscard]] Merge Find(int32_t left, int32_t right) const {
    return slots_[Place(Key(left, right))].merge;
  }

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = std::numeric_limits<uint64_t>::max();  // ids are not negative

  static uint64_t Key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) |
           static_cast<uint32_t>(right);
  }

  // The slot that holds the key, or the free one where it belongs. Multiplicative hashing (Knuth,
  // TAOCP 3, 6.4) and linear probing; at most half of the slots are taken.
  [[nodiscard]] size_t Place(uint64_t key) const {
    size_t place = static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> shift_);
    while (slots_[place].key != key && slots_[place].key != kEmpty) {
      place = (place + 1) & (slots_.size() - 1);
    }
    return place;
  }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace weft
