// The store that writes files against the one in memory: the same random calls must give the same
// answers, and a folder opened again must hold what memory holds.

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/crypto/digest.h"
#include "common/runtime/file_store.h"
#include "common/runtime/ledger.h"
#include "common/runtime/memory_store.h"
#include "tests/support/post_queue.h"

namespace weft {
namespace {

using testing::PostQueue;
using testing::ScratchFolder;

// Names of every shape that may be, and some that may not.
constexpr const char* kNames[] = {
    "a",      "state/round-1", "state/round-2", "spool/x/y", "b.bin", "state/round-1.extra",
    "../out", "run.db",        "c.part",        ""};

class StoreModelTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  StoreModelTest() { Open(); }

  void Open() {
    auto opened =
        FileStore::Open({.folder = folder_.path() / "run", .post = loop_.Poster(), .wall_us = [] {
                           return int64_t{5};
                         }});
    ASSERT_TRUE(opened.ok()) << opened.status();
    files_ = std::move(*opened);
  }

  // Both stores do it; their answers must agree.
  Status Both(const std::function<void(Store&, Done)>& call) {
    const Status of_files = loop_.Await([&](Done done) { call(*files_, std::move(done)); });
    const Status of_memory = loop_.Await([&](Done done) { call(memory_, std::move(done)); });
    EXPECT_EQ(of_files.code(), of_memory.code()) << of_files << "\n" << of_memory;
    return of_files;
  }

  void OneCall() {
    const std::string name = kNames[random_.Below(std::size(kNames))];
    const std::string text(random_.Below(200), static_cast<char>('a' + random_.Below(26)));
    switch (random_.Below(8)) {
      case 0:
        (void)Both([&](Store& s, Done done) {
          s.Append({{Str("kind-", random_.key() % 3), Str("{\"n\":", text.size(), "}")}}, done);
        });
        return;
      case 1:
        (void)Both([&](Store& s, Done d) { s.WriteBlob(name, Blob::Copy(text), d); });
        return;
      case 2:
      case 3: {
        const uint64_t at = random_.Below(4) == 0 ? random_.Below(300) : memory_.PartialBytes(name);
        (void)Both([&](Store& s, Done d) { s.WritePartial(name, at, Blob::Copy(text), d); });
        partials_[name].resize(std::min<size_t>(partials_[name].size(), at));
        if (at == partials_[name].size()) partials_[name] += text;
        return;
      }
      case 4: {
        const std::string& whole = partials_[name];
        const bool right = random_.Below(3) != 0;
        const std::string sha256 = Sha256Hex(AsBytes(right ? whole : whole + "x"));
        const uint64_t bytes = whole.size() + (random_.Below(8) == 0 ? 1 : 0);
        (void)Both([&](Store& s, Done d) { s.SealPartial(name, bytes, sha256, d); });
        partials_[name].clear();
        return;
      }
      case 5:
        (void)Both([&](Store& s, Done d) { s.RemoveBlob(name, d); });
        partials_[name].clear();
        return;
      default:
        Look(name);
    }
  }

  void Look(const std::string& name) const {
    EXPECT_EQ(files_->PartialBytes(name), memory_.PartialBytes(name)) << name;
    for (const std::string& each : {name, name + "/below"}) {
      const Result<Blob> a = files_->ReadBlob(each), b = memory_.ReadBlob(each);
      ASSERT_EQ(a.status().code(), b.status().code()) << each << ": " << a.status() << b.status();
      if (a.ok()) {
        EXPECT_EQ(a->view(), b->view()) << each;
      }
    }
  }

  void LookAtAll() const {
    for (const char* name : kNames) Look(name);
    for (const char* prefix : {"", "s", "state/", "state/round-1", "spool/x", "none", "../"}) {
      EXPECT_EQ(files_->ListBlobs(prefix), memory_.ListBlobs(prefix)) << prefix;
    }
    const auto a = files_->ReadLedger(), b = memory_.ReadLedger();
    ASSERT_TRUE(a.ok() && b.ok()) << a.status();
    ASSERT_EQ(a->size(), b->size());
    for (size_t i = 0; i < a->size(); ++i) EXPECT_EQ((*a)[i].hash, (*b)[i].hash) << i;
  }

  ScratchFolder folder_;
  PostQueue loop_;
  RandomStream random_{GetParam()};
  std::unique_ptr<FileStore> files_;
  MemoryStore memory_{{.post = loop_.Poster(), .wall_us = [] { return int64_t{5}; }, .fault = {}}};
  std::map<std::string, std::string> partials_;  // what a receiver believes it has sent
};

TEST_P(StoreModelTest, RandomCallsHaveTheSameAnswersInMemoryAndOnDisk) {
  for (int turn = 0; turn < 150 && !HasFailure(); ++turn) OneCall();
  LookAtAll();
}

TEST_P(StoreModelTest, AStoreThatIsOpenedAgainGoesOnAsIfNothingHadHappened) {
  for (int life = 0; life < 4 && !HasFailure(); ++life) {
    for (int turn = 0; turn < 40 && !HasFailure(); ++turn) OneCall();
    files_.reset();
    Open();
    LookAtAll();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, StoreModelTest, ::testing::Range(uint64_t{1}, uint64_t{9}));

// Many writes asked for at once: what is told about partial blobs meanwhile is what will be.
TEST(StoreQueueTest, PlannedSizesAddUpWhateverIsQueued) {
  const ScratchFolder folder;
  PostQueue loop;
  auto store =
      FileStore::Open({.folder = folder.path() / "run", .post = loop.Poster(), .wall_us = [] {
                         return int64_t{0};
                       }});
  ASSERT_TRUE(store.ok()) << store.status();
  int called = 0;
  std::vector<Code> codes;
  const Done note = [&](const Status& status) {
    ++called;
    codes.push_back(status.code());
  };
  const Blob part = Blob::Copy(std::string_view("12345"));
  for (uint64_t i = 0; i < 50; ++i) {
    (*store)->WritePartial("p", 5 * i, part, note);
    EXPECT_EQ((*store)->PartialBytes("p"), 5 * (i + 1));
    if (i % 10 == 3) {
      (*store)->WritePartial("p", 5 * i, part, note);  // a repeated chunk
      EXPECT_EQ((*store)->PartialBytes("p"), 5 * (i + 1)) << "counts once";
    }
  }
  while (called < 55) loop.RunOne();
  EXPECT_EQ(std::count(codes.begin(), codes.end(), Code::kFailedPrecondition), 5);
  EXPECT_EQ((*store)->PartialBytes("p"), 250u);
  (*store)->RemoveBlob("p", note);
  EXPECT_EQ((*store)->PartialBytes("p"), 0u);
  loop.RunOne();
}

}  // namespace
}  // namespace weft
