// A simulated disk: writes take time, complete in order, and a crash leaves a beginning of them.

#include "sim/disk.h"

#include <set>

#include <gtest/gtest.h>

#include "common/crypto/digest.h"

namespace weft::sim {
namespace {

using namespace std::chrono_literals;

struct Bench {
  explicit Bench(Nanos write_time, uint64_t seed = 1)
      : disk({.queue = queue,
              .wall_us = [this] { return queue.now().count() / 1000; },
              .write_time = write_time,
              .seed = seed}) {}

  void RunAll() {
    while (queue.RunOne()) {
    }
  }
  Done Note(const std::string& what) {
    return [this, what](const Status& status) {
      lines.push_back(what + (status.ok() ? "" : " failed") + "@" +
                      std::to_string(queue.now().count() / 1000000));
    };
  }
  std::string Read(const std::string& name) const {
    const Result<Blob> blob = disk.ReadBlob(name);
    return blob.ok() ? std::string(blob->view()) : "-";
  }

  EventQueue queue;
  SimDisk disk;
  std::vector<std::string> lines;
};

TEST(SimDiskTest, WritesTakeTheirTimeOneAfterTheOther) {
  Bench bench(2ms);
  bench.disk.WriteBlob("a", Blob::Copy("one"), bench.Note("a"));
  bench.disk.Append({{"kind", "{}"}}, bench.Note("event"));
  bench.disk.RemoveBlob("a", bench.Note("gone"));
  EXPECT_EQ(bench.Read("a"), "-") << "nothing is there before its time";
  bench.RunAll();
  EXPECT_EQ(bench.lines, (std::vector<std::string>{"a@2", "event@4", "gone@6"}));
  EXPECT_EQ(bench.Read("a"), "-");
  EXPECT_EQ(bench.disk.ReadLedger()->size(), 1u);
}

TEST(SimDiskTest, ACompletionMayAskForTheNextWrite) {
  Bench bench(1ms);
  bench.disk.WriteBlob("a", Blob::Copy("one"), [&](const Status&) {
    bench.disk.WriteBlob("b", Blob::Copy("two"), bench.Note("b"));
  });
  bench.RunAll();
  EXPECT_EQ(bench.Read("b"), "two");
  EXPECT_EQ(bench.lines, (std::vector<std::string>{"b@2"}));
}

TEST(SimDiskTest, PartialBlobsAreAsLargeAsWhatWasAskedFor) {
  Bench bench(1ms);
  bench.disk.WritePartial("u", 0, Blob::Copy("0123"), bench.Note("first"));
  bench.disk.WritePartial("u", 4, Blob::Copy("45"), bench.Note("second"));
  EXPECT_EQ(bench.disk.PartialBytes("u"), 6u);
  bench.disk.SealPartial("u", 6, Sha256Hex(AsBytes("012345")), bench.Note("sealed"));
  EXPECT_EQ(bench.disk.PartialBytes("u"), 0u);
  bench.RunAll();
  EXPECT_EQ(bench.Read("u"), "012345");
  bench.disk.WritePartial("u", 0, Blob::Copy("x"), bench.Note("again"));
  bench.disk.RemoveBlob("u", bench.Note("removed"));
  EXPECT_EQ(bench.disk.PartialBytes("u"), 0u);
  bench.RunAll();
  EXPECT_EQ(bench.Read("u"), "-");
}

TEST(SimDiskTest, ErrorsAreThoseOfAnyStore) {
  Bench bench(1ms);
  bench.disk.WriteBlob("../x", Blob::Copy("one"), bench.Note("outside"));
  bench.disk.WritePartial("u", 5, Blob::Copy("x"), bench.Note("gap"));
  bench.disk.WritePartial("v", 0, Blob::Copy("x"), bench.Note("v"));
  bench.disk.SealPartial("v", 1, std::string(64, '0'), bench.Note("seal"));
  bench.RunAll();
  EXPECT_EQ(bench.lines,
            (std::vector<std::string>{"outside failed@1", "gap failed@2", "v@3", "seal failed@4"}));
}

TEST(SimDiskTest, ACrashLeavesABeginningOfTheWritesAndAcknowledgesNone) {
  std::set<size_t> found;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Bench bench(2ms, seed);
    bench.disk.WriteBlob("0", Blob::Copy("before"), bench.Note("0"));
    bench.RunAll();
    for (const char* name : {"1", "2", "3"}) {
      bench.disk.WriteBlob(name, Blob::Copy("after"), bench.Note(name));
    }
    bench.disk.Append({{"kind", "{}"}}, bench.Note("event"));
    bench.disk.Crash();
    bench.RunAll();
    EXPECT_EQ(bench.lines, (std::vector<std::string>{"0@2"}));
    EXPECT_EQ(bench.Read("0"), "before") << "what was acknowledged stays";
    size_t kept = 0;
    bool ended = false;
    for (const char* name : {"1", "2", "3"}) {
      const bool there = bench.Read(name) != "-";
      EXPECT_FALSE(there && ended) << "a later write without an earlier one";
      ended = ended || !there;
      kept += there;
    }
    const size_t events = bench.disk.ReadLedger()->size();
    EXPECT_FALSE(events == 1 && kept < 3);
    found.insert(kept + events);
    // A new life writes on.
    bench.disk.WriteBlob("new", Blob::Copy("life"), bench.Note("new"));
    bench.RunAll();
    EXPECT_EQ(bench.Read("new"), "life");
    EXPECT_EQ(bench.lines.size(), 2u);
  }
  EXPECT_EQ(found.size(), 5u) << "every length of a beginning occurs";
}

TEST(SimDiskTest, AChunkMayBeTornAndASealedBlobMayNot) {
  std::set<uint64_t> sizes;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Bench bench(2ms, seed);
    bench.disk.WritePartial("u", 0, Blob::Copy("0123456789"), bench.Note("chunk"));
    bench.disk.Crash();
    sizes.insert(bench.disk.PartialBytes("u"));
    Bench sealed(2ms, seed);
    sealed.disk.WritePartial("u", 0, Blob::Copy("0123456789"), sealed.Note("chunk"));
    sealed.RunAll();
    sealed.disk.SealPartial("u", 10, Sha256Hex(AsBytes("0123456789")), sealed.Note("seal"));
    sealed.disk.Crash();
    const bool whole = sealed.Read("u") == "0123456789";
    EXPECT_TRUE(whole || sealed.disk.PartialBytes("u") == 10);
  }
  EXPECT_EQ(*sizes.begin(), 0u);
  EXPECT_EQ(*sizes.rbegin(), 10u);
  EXPECT_GT(sizes.size(), 5u);
}

}  // namespace
}  // namespace weft::sim
