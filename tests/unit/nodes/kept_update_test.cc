// What a client keeps on its disk, and what it makes of damage there.

#include "client/kept_update.h"

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "common/crypto/digest.h"
#include "common/runtime/memory_store.h"
#include "tests/unit/nodes/fake_world.h"

namespace weft::testing {
namespace {

class NoTransport final : public Transport {
 public:
  void SetReceiver(Receiver* /*receiver*/) override {}
  Status Send(const ClientId& /*to*/, Frames /*frames*/) override { return OkStatus(); }
  void Cut(const ClientId& /*peer*/, const Status& /*why*/) override {}
};

class NoExecutor final : public Executor {
 public:
  void SubmitAny(std::any /*job*/, Nanos /*modelled_cost*/, std::shared_ptr<JobControl> /*control*/,
                 std::function<void(std::any)> /*done*/) override {}
};

class KeptUpdateTest : public ::testing::Test {
 protected:
  void Keep(uint32_t round, const std::string& local_state) {
    KeptUpdate update;
    update.bundle_sha256 = Sha256Hex(AsBytes("bundle"));
    update.payload = Blob::Adopt(Str("update of round ", round));
    update.header.run = run_;
    update.header.round = RoundId{round};
    update.header.num_examples = 40;
    update.header.payload_bytes = update.payload.size();
    update.header.payload_sha256 = Sha256Hex(update.payload.span());
    Status kept = Internal("not done");
    disk_.Keep(update, Blob::Adopt(local_state), [&](const Status& status) { kept = status; });
    ASSERT_TRUE(kept.ok()) << kept;
  }

  void Damage(const std::string& name) {
    const Result<Blob> blob = store_.ReadBlob(name);
    ASSERT_TRUE(blob.ok()) << blob.status();
    std::string bytes(blob->view());
    bytes[bytes.size() / 2] ^= 1;
    store_.WriteBlob(name, Blob::Adopt(std::move(bytes)), [](const Status&) {});
  }

  std::string StateOf(uint32_t round) {
    for (const std::string& name : store_.ListBlobs("local/")) {
      if (name.ends_with(Str(round))) return name;
    }
    return "none";
  }

  ManualClock clock_;
  NoTransport transport_;
  NoExecutor executor_;
  MemoryStore store_{{.post = [](std::function<void()> task) { task(); },
                      .wall_us = [] { return int64_t{0}; },
                      .fault = {}}};
  RandomStream entropy_ = RandomStream::Derive(1, {"kept"});
  std::shared_ptr<log::MemorySink> lines_ = std::make_shared<log::MemorySink>();
  log::Logger log_{"client", lines_, [] { return int64_t{0}; }, log::Level::kDebug};
  ClientContext context_{Env{clock_, transport_, executor_, store_, entropy_, log_}, {}};
  ClientDisk disk_{context_};
  const RunId run_{"run"};
};

TEST_F(KeptUpdateTest, IsThereAgainAsItWasKept) {
  ASSERT_NO_FATAL_FAILURE(Keep(3, "state"));
  const std::optional<KeptUpdate> found = disk_.Load();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->payload.view(), "update of round 3");
  EXPECT_EQ(found->header.num_examples, 40U);
  EXPECT_EQ(found->bundle_sha256, Sha256Hex(AsBytes("bundle")));
}

TEST_F(KeptUpdateTest, DamagedAnywhereItIsTakenForNone) {
  for (const char* name : {"update/header", "update/payload"}) {
    ASSERT_NO_FATAL_FAILURE(Keep(3, "state"));
    ASSERT_NO_FATAL_FAILURE(Damage(name));
    EXPECT_FALSE(disk_.Load()) << name;
  }
}

TEST_F(KeptUpdateTest, OfADamagedLocalStateTheOneBeforeIsUsed) {
  ASSERT_NO_FATAL_FAILURE(Keep(1, "after round 1"));
  ASSERT_NO_FATAL_FAILURE(Keep(2, "after round 2"));
  EXPECT_EQ(disk_.LocalStateBefore(run_, RoundId{3}).view(), "after round 2");
  ASSERT_NO_FATAL_FAILURE(Damage(StateOf(2)));
  EXPECT_EQ(disk_.LocalStateBefore(run_, RoundId{3}).view(), "after round 1");
  ASSERT_NO_FATAL_FAILURE(Damage(StateOf(1)));
  EXPECT_TRUE(disk_.LocalStateBefore(run_, RoundId{3}).empty());
}

TEST_F(KeptUpdateTest, AStateFromBeforeThereWereDigestsIsUsed) {
  ASSERT_NO_FATAL_FAILURE(Keep(1, "after round 1"));
  store_.RemoveBlob("check/" + StateOf(1), [](const Status&) {});
  EXPECT_EQ(disk_.LocalStateBefore(run_, RoundId{2}).view(), "after round 1");
}

TEST_F(KeptUpdateTest, OldStatesGoWithTheirDigests) {
  for (uint32_t round = 1; round <= 5; ++round) {
    ASSERT_NO_FATAL_FAILURE(Keep(round, Str("after round ", round)));
  }
  EXPECT_EQ(store_.ListBlobs("local/").size(), 2U);
  EXPECT_EQ(store_.ListBlobs("check/").size(), 2U);
}

}  // namespace
}  // namespace weft::testing
