// What every Store promises, run on each of them.

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "common/crypto/digest.h"
#include "common/runtime/file_store.h"
#include "common/runtime/memory_store.h"
#include "tests/support/post_queue.h"

namespace weft {
namespace {

using testing::PostQueue;
using testing::ScratchFolder;

struct World {
  PostQueue loop;
  ScratchFolder folder;
  int64_t wall_us = 1'000'000;
};

struct Kind {
  const char* name;
  std::function<std::unique_ptr<Store>(World&)> make;
};

class StoreContractTest : public ::testing::TestWithParam<Kind> {
 protected:
  Status Append(std::vector<EventDraft> events) {
    return world_.loop.Await([&](Done done) { store_->Append(std::move(events), done); });
  }
  Status Write(const std::string& name, const std::string& text) {
    return world_.loop.Await([&](Done done) { store_->WriteBlob(name, Blob::Copy(text), done); });
  }
  Status Part(const std::string& name, uint64_t offset, const std::string& text) {
    return world_.loop.Await(
        [&](Done done) { store_->WritePartial(name, offset, Blob::Copy(text), done); });
  }
  Status Seal(const std::string& name, uint64_t bytes, const std::string& sha256) {
    return world_.loop.Await([&](Done done) { store_->SealPartial(name, bytes, sha256, done); });
  }
  Status Remove(const std::string& name) {
    return world_.loop.Await([&](Done done) { store_->RemoveBlob(name, done); });
  }
  std::string Text(const std::string& name) {
    const Result<Blob> blob = store_->ReadBlob(name);
    return blob.ok() ? std::string(blob->view()) : blob.status().ToString();
  }

  World world_;
  std::unique_ptr<Store> store_ = GetParam().make(world_);
};

TEST_P(StoreContractTest, EventsAreNumberedChainedAndReadBackInOrder) {
  ASSERT_TRUE(Append({{"a", "{\"x\":1}"}, {"b", "{}"}}).ok());
  world_.wall_us += 5;
  ASSERT_TRUE(Append({{"c", "{\"y\":\"ü\"}"}}).ok());
  const Result<std::vector<LedgerEvent>> events = store_->ReadLedger();
  ASSERT_TRUE(events.ok()) << events.status();
  ASSERT_EQ(events->size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ((*events)[i].seq, i + 1);
  EXPECT_EQ((*events)[0].kind, "a");
  EXPECT_EQ((*events)[0].body, "{\"x\":1}");
  EXPECT_EQ((*events)[1].wall_us, 1'000'000);
  EXPECT_EQ((*events)[2].wall_us, 1'000'005);
  EXPECT_EQ((*events)[2].body, "{\"y\":\"ü\"}");
  EXPECT_NE((*events)[0].hash, (*events)[1].hash);
}

TEST_P(StoreContractTest, AnEmptyLedgerAndAnEmptyAppendAreFine) {
  EXPECT_TRUE(store_->ReadLedger()->empty());
  EXPECT_TRUE(Append({}).ok());
  EXPECT_TRUE(store_->ReadLedger()->empty());
}

TEST_P(StoreContractTest, CompletionsComeInTheOrderAskedForWhateverTheKindOfWrite) {
  std::vector<int> order;
  const std::string sha256 = Sha256Hex(AsBytes("xy"));
  for (int i = 0; i < 40; i += 4) {
    const auto note = [&order](int n) {
      return [&order, n](Status status) {
        EXPECT_TRUE(status.ok()) << n << " " << status;
        order.push_back(n);
      };
    };
    const std::string part = "spool/p" + std::to_string(i);
    store_->Append({{"k", "{}"}}, note(i));
    store_->Append({{"k", "{}"}}, note(i + 1));
    store_->WritePartial(part, 0, Blob::Copy("xy"), note(i + 2));
    store_->SealPartial(part, 2, sha256, note(i + 3));
  }
  while (order.size() < 40) world_.loop.RunOne();
  for (int i = 0; i < 40; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  EXPECT_EQ(store_->ReadLedger()->size(), 20u);
  EXPECT_EQ(store_->ListBlobs("spool/").size(), 10u);
}

TEST_P(StoreContractTest, DoneIsNeverCalledFromInsideTheCall) {
  bool called = false;
  store_->WriteBlob("a", Blob::Copy("x"), [&](const Status&) { called = true; });
  store_->WriteBlob("../a", Blob::Copy("x"), [&](const Status&) { called = true; });
  EXPECT_FALSE(called);
  world_.loop.RunOne();
  world_.loop.RunOne();
  EXPECT_TRUE(called);
}

TEST_P(StoreContractTest, ABlobIsReadBackAndReplacedWhole) {
  EXPECT_EQ(store_->ReadBlob("state/1").status().code(), Code::kNotFound);
  ASSERT_TRUE(Write("state/1", "first").ok());
  const Blob held = *store_->ReadBlob("state/1");
  ASSERT_TRUE(Write("state/1", "the second, longer").ok());
  EXPECT_EQ(Text("state/1"), "the second, longer");
  EXPECT_EQ(held.view(), "first") << "a reader keeps the bytes it was given";
  ASSERT_TRUE(Write("empty", "").ok());
  EXPECT_EQ(Text("empty"), "");
}

TEST_P(StoreContractTest, APartOfABlobIsReadByItself) {
  ASSERT_TRUE(Write("state/1", "first and second").ok());
  EXPECT_EQ(store_->ReadPart("state/1", 6, 3)->view(), "and");
  EXPECT_EQ(store_->ReadPart("state/1", 0, 16)->view(), "first and second");
  EXPECT_EQ(store_->ReadPart("state/1", 16, 0)->view(), "");
  EXPECT_EQ(store_->ReadPart("state/1", 10, 7).status().code(), Code::kDataLoss);
  EXPECT_EQ(store_->ReadPart("state/1", 17, 0).status().code(), Code::kDataLoss);
  EXPECT_EQ(store_->ReadPart("state/1", 1, ~uint64_t{0}).status().code(), Code::kDataLoss);
  EXPECT_EQ(store_->ReadPart("state/2", 0, 1).status().code(), Code::kNotFound);
  EXPECT_EQ(store_->ReadPart("../state", 0, 1).status().code(), Code::kInvalidArgument);
}

TEST_P(StoreContractTest, BlobsAreListedSortedByPrefix) {
  for (const char* name : {"b/2", "b/10", "a", "b2", "b/sub/deep"}) {
    ASSERT_TRUE(Write(name, "x").ok());
  }
  ASSERT_TRUE(Part("b/3", 0, "half").ok());
  using Names = std::vector<std::string>;
  EXPECT_EQ(store_->ListBlobs(""), (Names{"a", "b/10", "b/2", "b/sub/deep", "b2"}));
  EXPECT_EQ(store_->ListBlobs("b/"), (Names{"b/10", "b/2", "b/sub/deep"}));
  EXPECT_EQ(store_->ListBlobs("b/1"), (Names{"b/10"}));
  EXPECT_EQ(store_->ListBlobs("none/"), Names{});
  EXPECT_EQ(store_->ListBlobs("../"), Names{});
}

TEST_P(StoreContractTest, APartialBlobGrowsAndIsSealed) {
  const std::string sha256 = Sha256Hex(AsBytes("hello world"));
  EXPECT_EQ(store_->PartialBytes("spool/u"), 0u);
  ASSERT_TRUE(Part("spool/u", 0, "hello ").ok());
  EXPECT_EQ(store_->PartialBytes("spool/u"), 6u);
  EXPECT_EQ(store_->ReadBlob("spool/u").status().code(), Code::kNotFound);
  ASSERT_TRUE(Part("spool/u", 6, "world").ok());
  ASSERT_TRUE(Seal("spool/u", 11, sha256).ok());
  EXPECT_EQ(Text("spool/u"), "hello world");
  EXPECT_EQ(store_->PartialBytes("spool/u"), 0u);
}

TEST_P(StoreContractTest, PartialBytesCountsWhatIsAskedForButNotYetDone) {
  int done = 0;
  const auto count = [&](const Status&) { ++done; };
  store_->WritePartial("u", 0, Blob::Copy("abc"), count);
  store_->WritePartial("u", 3, Blob::Copy("de"), count);
  EXPECT_EQ(store_->PartialBytes("u"), 5u);
  store_->WritePartial("u", 99, Blob::Copy("zz"), count);
  EXPECT_EQ(store_->PartialBytes("u"), 5u);
  store_->RemoveBlob("u", count);
  EXPECT_EQ(store_->PartialBytes("u"), 0u);
  while (done < 4) world_.loop.RunOne();
  EXPECT_EQ(store_->PartialBytes("u"), 0u);
}

TEST_P(StoreContractTest, AChunkOutOfOrderIsRefusedAndNothingIsLost) {
  ASSERT_TRUE(Part("u", 0, "abc").ok());
  const Status gap = Part("u", 5, "x");
  EXPECT_EQ(gap.code(), Code::kFailedPrecondition);
  EXPECT_NE(gap.message().find("offset 5, it has 3"), std::string::npos) << gap;
  EXPECT_EQ(Part("u", 0, "abc").code(), Code::kFailedPrecondition);
  ASSERT_TRUE(Part("u", 3, "d").ok());
  EXPECT_TRUE(Seal("u", 4, Sha256Hex(AsBytes("abcd"))).ok());
}

TEST_P(StoreContractTest, SealingWithAnotherDigestOrSizeRemovesThePartial) {
  for (const bool wrong_size : {false, true}) {
    ASSERT_TRUE(Part("u", 0, "abc").ok());
    const Status status = wrong_size ? Seal("u", 4, Sha256Hex(AsBytes("abc")))
                                     : Seal("u", 3, Sha256Hex(AsBytes("abd")));
    EXPECT_EQ(status.code(), Code::kDataLoss);
    EXPECT_NE(status.message().find("partial blob u"), std::string::npos) << status;
    EXPECT_EQ(store_->PartialBytes("u"), 0u);
    EXPECT_EQ(store_->ReadBlob("u").status().code(), Code::kNotFound);
  }
  EXPECT_EQ(Seal("never", 3, Sha256Hex(AsBytes("abc"))).code(), Code::kDataLoss);
}

TEST_P(StoreContractTest, AnEmptyPayloadCanBeSealed) {
  ASSERT_TRUE(Seal("empty", 0, Sha256Hex({})).ok());
  EXPECT_EQ(Text("empty"), "");
}

TEST_P(StoreContractTest, RemovingTakesBothForms) {
  ASSERT_TRUE(Write("u", "whole").ok());
  ASSERT_TRUE(Part("u", 0, "half").ok());
  ASSERT_TRUE(Remove("u").ok());
  EXPECT_EQ(store_->ReadBlob("u").status().code(), Code::kNotFound);
  EXPECT_EQ(store_->PartialBytes("u"), 0u);
  EXPECT_TRUE(Remove("u").ok());
  EXPECT_TRUE(Remove("no/such/folder").ok());
}

TEST_P(StoreContractTest, NamesThatCouldLeaveTheFolderAreRefusedEverywhere) {
  const std::vector<std::string> bad = {"",
                                        "/etc/x",
                                        "../x",
                                        "a/../../x",
                                        "a//b",
                                        "a/",
                                        "a/.",
                                        "..",
                                        "a\\b",
                                        std::string("a\0b", 3),
                                        "a\nb",
                                        "run.db",
                                        "lock",
                                        "run.db-wal",
                                        "x.part",
                                        "a.weft-tmp/b",
                                        "stop-request",
                                        std::string(2000, 'x'),
                                        std::string(250, 'y')};
  for (const std::string& name : bad) {
    EXPECT_EQ(Write(name, "x").code(), Code::kInvalidArgument) << name;
    EXPECT_EQ(Part(name, 0, "x").code(), Code::kInvalidArgument) << name;
    EXPECT_EQ(Seal(name, 0, "").code(), Code::kInvalidArgument) << name;
    EXPECT_EQ(Remove(name).code(), Code::kInvalidArgument) << name;
    EXPECT_EQ(store_->ReadBlob(name).status().code(), Code::kInvalidArgument) << name;
    EXPECT_EQ(store_->PartialBytes(name), 0u) << name;
  }
  EXPECT_TRUE(Write("adapters/round-0001/..name", "x").ok());
  EXPECT_TRUE(store_->ReadLedger().ok()) << "the ledger was not hit";
}

TEST_P(StoreContractTest, BlobsMayBeReadFromOtherThreadsWhileOthersAreWritten) {
  ASSERT_TRUE(Write("shared", std::string(100'000, 'a')).ok());
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([this] {
      for (int i = 0; i < 50; ++i) {
        const Result<Blob> blob = store_->ReadBlob("shared");
        ASSERT_TRUE(blob.ok());
        const std::string_view text = blob->view();
        ASSERT_EQ(text.size(), 100'000u);
        EXPECT_EQ(text.find_first_not_of(text[0]), std::string_view::npos) << "a mixture";
      }
    });
  }
  for (const char letter : {'b', 'c', 'd'}) {
    ASSERT_TRUE(Write("shared", std::string(100'000, letter)).ok());
  }
  for (std::thread& reader : readers) reader.join();
}

INSTANTIATE_TEST_SUITE_P(
    AllStores, StoreContractTest,
    ::testing::Values(Kind{"Memory",
                           [](World& world) -> std::unique_ptr<Store> {
                             return std::make_unique<MemoryStore>(
                                 MemoryStore::Options{.post = world.loop.Poster(),
                                                      .wall_us = [&world] { return world.wall_us; },
                                                      .fault = nullptr});
                           }},
                      Kind{"File",
                           [](World& world) -> std::unique_ptr<Store> {
                             Result<std::unique_ptr<FileStore>> store =
                                 FileStore::Open({.folder = world.folder.path() / "run",
                                                  .post = world.loop.Poster(),
                                                  .wall_us = [&world] { return world.wall_us; }});
                             EXPECT_TRUE(store.ok()) << store.status();
                             return std::move(store).value();
                           }}),
    [](const ::testing::TestParamInfo<Kind>& param) { return std::string(param.param.name); });

TEST(MemoryStoreTest, AFaultIsTheWritesOutcomeAndChangesNothing) {
  World world;
  MemoryStore store({.post = world.loop.Poster(),
                     .wall_us = [] { return int64_t{0}; },
                     .fault = [](std::string_view operation, const std::string& name) -> Status {
                       if (operation == "Append") return ResourceExhausted("disk full");
                       return name == "bad" ? Internal("broken") : OkStatus();
                     }});
  const Status append = world.loop.Await([&](Done done) {
    store.Append({{"a", "{}"}}, std::move(done));
  });
  EXPECT_EQ(append.code(), Code::kResourceExhausted);
  EXPECT_TRUE(store.ReadLedger()->empty());
  const Status bad =
      world.loop.Await([&](Done done) { store.WriteBlob("bad", Blob(), std::move(done)); });
  EXPECT_EQ(bad.code(), Code::kInternal);
  EXPECT_TRUE(store.ListBlobs("").empty());
}

}  // namespace
}  // namespace weft
