// Who is sent a bundle when many ask at once: what is under way stays bounded.

#include "aggregator/downloads.h"

#include <map>
#include <string>

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/runtime/memory_store.h"

namespace weft {
namespace {

class HandClock : public Clock {
 public:
  [[nodiscard]] Nanos Now() const override { return now; }
  [[nodiscard]] int64_t WallMicros() const override { return 0; }
  TimerId At(Nanos, std::function<void()>) override { return {}; }
  void Cancel(TimerId) override {}
  Nanos now = Seconds(100);
};

class CountingTransport : public Transport {
 public:
  void SetReceiver(Receiver*) override {}
  Status Send(const ClientId& to, Frames frames) override {
    bytes[to] += frames.chunk.size();
    return OkStatus();
  }
  void Cut(const ClientId&, const Status&) override {}
  std::map<ClientId, uint64_t> bytes;
};

class NoExecutor : public Executor {
 public:
  void SubmitAny(std::any, Nanos, std::shared_ptr<JobControl>,
                 std::function<void(std::any)>) override {}
};

class DownloadsTest : public ::testing::Test {
 protected:
  static constexpr size_t kClients = 100;

  DownloadsTest() {
    bundle_.bytes = Blob::Adopt(std::string(limits::kChunkBytes, 'x'));
    bundle_.offer = OfferOf(bundle_.bytes);
    for (size_t i = 0; i < kClients; ++i) {
      downloads_.Allow(Name(i), Downloads::Use::kTrain, bundle_);
    }
  }

  static ClientId Name(size_t i) { return ClientId{Str("c", 100 + i)}; }
  void Ask(size_t i) {
    const Status status =
        downloads_.OnRequest(Name(i), {.sha256 = bundle_.offer.sha256, .first = 0, .count = 1});
    ASSERT_TRUE(status.ok()) << status;
  }
  [[nodiscard]] size_t Served() const { return transport_.bytes.size(); }

  HandClock clock_;
  CountingTransport transport_;
  NoExecutor executor_;
  MemoryStore store_{
      {.post = [](std::function<void()>) {}, .wall_us = [] { return int64_t{0}; }, .fault = {}}};
  RandomStream entropy_ = RandomStream::Derive(1, {"test"});
  log::Logger logger_{"test", std::make_shared<log::MemorySink>(), [] { return int64_t{0}; }};
  Office office_{Env{clock_, transport_, executor_, store_, entropy_, logger_}, {}};
  Downloads downloads_{office_};
  Bundle bundle_;
};

TEST_F(DownloadsTest, ACohortThatAsksForSmallBundlesIsNotSentAllAtOnce) {
  for (size_t i = 0; i < kClients; ++i) Ask(i);
  EXPECT_EQ(Served(), 32U) << "8 MiB of chunks of 256 KiB";
  downloads_.OnArrived(Name(3));
  EXPECT_EQ(Served(), 33U) << "one has it, the next is served";
  downloads_.OnArrived(Name(3));
  EXPECT_EQ(Served(), 33U) << "twice told is once";
  downloads_.Gone(Name(4));
  EXPECT_EQ(Served(), 34U) << "nothing is under way to one that is gone";
}

TEST_F(DownloadsTest, WhoNeverTellsThatItHasItDelaysOthersForAMomentOnly) {
  for (size_t i = 0; i < kClients; ++i) Ask(i);
  clock_.now += Seconds(1);
  downloads_.Tick();
  EXPECT_EQ(Served(), 32U);
  clock_.now += Seconds(1.5);
  downloads_.Tick();
  EXPECT_EQ(Served(), 64U);
}

TEST_F(DownloadsTest, WhatIsForbiddenIsNotUnderWayEither) {
  for (size_t i = 0; i < kClients; ++i) Ask(i);
  downloads_.ForbidAll(Downloads::Use::kTrain);
  EXPECT_EQ(Served(), 32U);
  for (size_t i = 0; i < 40; ++i) {
    downloads_.Allow(Name(50 + i), Downloads::Use::kEvaluate, bundle_);
    Ask(50 + i);
  }
  EXPECT_EQ(Served(), 64U);
}

TEST_F(DownloadsTest, OneThatAsksAgainIsServedAgainAndCountsOnce) {
  for (size_t i = 0; i < 32; ++i) Ask(i);
  Ask(0);
  EXPECT_EQ(transport_.bytes.at(Name(0)), 2 * limits::kChunkBytes);
  Ask(32);
  EXPECT_EQ(Served(), 32U);
  downloads_.OnArrived(Name(0));
  EXPECT_EQ(Served(), 33U);
}

}  // namespace
}  // namespace weft
