#pragma once
// SimDisk: a node's Store in simulation. Writes take virtual time and are acknowledged when they
// are done; a crash loses the acknowledgements, and of the writes under way only the first few are
// found on the disk afterwards, the last of them perhaps in part. Single-threaded but for reading.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/random.h"
#include "common/runtime/memory_store.h"
#include "sim/disk_bug.h"
#include "sim/event_queue.h"

namespace weft::sim {

class SimDisk : public Store {
 public:
  struct Options {
    EventQueue& queue;
    std::function<int64_t()> wall_us;
    Nanos write_time{0};  // of one write; zero: done within the same moment of virtual time
    uint64_t seed = 1;    // decides what a crash leaves
    DiskBug bug = DiskBug::kNone;
  };
  explicit SimDisk(Options options);

  /// The process is gone: no write it asked for is acknowledged any more.
  void Crash();
  /// A bit of one of the files that the process checks when it starts again is another one: the
  /// newest state or an update. The file's name; empty if there is none.
  std::string FlipABit();
  /// Takes nothing before that time.
  void StallUntil(Nanos end) { stalled_until_ = std::max(stalled_until_, end); }

  void Append(std::vector<EventDraft> events, Done done) override;
  void WriteBlob(std::string name, Blob bytes, Done done) override;
  void WritePartial(std::string name, uint64_t offset, Blob bytes, Done done) override;
  void SealPartial(std::string name, uint64_t bytes, std::string sha256, Done done) override;
  [[nodiscard]] uint64_t PartialBytes(const std::string& name) const override;
  void RemoveBlob(std::string name, Done done) override;
  [[nodiscard]] Result<Blob> ReadBlob(const std::string& name) const override {
    return kept_.ReadBlob(name);
  }
  [[nodiscard]] std::vector<std::string> ListBlobs(const std::string& prefix) const override {
    return kept_.ListBlobs(prefix);
  }
  [[nodiscard]] Status EachEvent(const TakeEvent& take) const override {
    return kept_.EachEvent(take);
  }

 private:
  struct Write {
    std::function<void(Store& store, Done done)> apply;
    std::function<void(Store& store)> tear;  // the part of it that a crash may leave; may be empty
    std::string partial;                     // the blob whose planned size it changes; empty: none
    std::function<uint64_t(uint64_t)> size;  // of `partial` afterwards, from that before
    Done done;
  };
  void Push(Write write);
  void Next(uint64_t life);

  const Options options_;
  RandomStream luck_;
  RandomStream flips_;
  MemoryStore kept_;  // what is on the disk
  std::deque<Write> under_way_;
  uint64_t life_ = 1;  // raised by a crash
  Nanos stalled_until_{0};
};

}  // namespace weft::sim
