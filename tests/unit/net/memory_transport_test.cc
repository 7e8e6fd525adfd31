#include "common/net/memory_transport.h"

#include <thread>

#include "common/base/limits.h"
#include "tests/unit/net/net_world.h"

namespace weft {
namespace {

const ClientId kAlpha{"alpha"};
const ClientId kBeta{"beta"};

class MemoryTransportTest : public ::testing::Test {
 protected:
  MemoryTransportTest() {
    aggregator_->SetReceiver(&aggregator_notes_);
    alpha_->SetReceiver(&alpha_notes_);
    beta_->SetReceiver(&beta_notes_);
  }
  void Turn() { loop_.RunOnce(Nanos(0)); }
  void Greet() {
    ASSERT_TRUE(alpha_->Send(kAggregator, Text("hello")).ok());
    ASSERT_TRUE(beta_->Send(kAggregator, Text("hello")).ok());
    Turn();
  }

  EventLoop loop_;
  MemoryHub hub_;
  Notes aggregator_notes_, alpha_notes_, beta_notes_;
  std::unique_ptr<Transport> aggregator_ = hub_.MakeAggregator(loop_);
  std::unique_ptr<Transport> alpha_ = hub_.MakeClient(loop_, kAlpha);
  std::unique_ptr<Transport> beta_ = hub_.MakeClient(loop_, kBeta);
};

TEST_F(MemoryTransportTest, FramesCrossBothWaysInOrderWithoutACopy) {
  const Blob chunk = Blob::Copy(std::string_view("bytes"));
  ASSERT_TRUE(alpha_->Send(kAggregator, {Blob::Copy(std::string_view("1")), chunk}).ok());
  ASSERT_TRUE(alpha_->Send(kAggregator, Text("2")).ok());
  EXPECT_TRUE(aggregator_notes_.messages.empty()) << "nothing is delivered from within Send";
  Turn();
  ASSERT_EQ(aggregator_notes_.messages.size(), 2u);
  EXPECT_EQ(aggregator_notes_.messages[0].from, kAlpha);
  EXPECT_EQ(aggregator_notes_.messages[0].frames.chunk.data(), chunk.data());
  EXPECT_EQ(aggregator_notes_.messages[1].frames.control.view(), "2");
  ASSERT_TRUE(aggregator_->Send(kAlpha, Text("welcome")).ok());
  Turn();
  ASSERT_EQ(alpha_notes_.messages.size(), 1u);
  EXPECT_EQ(alpha_notes_.messages[0].from, kAggregator);
  EXPECT_TRUE(beta_notes_.messages.empty());
}

TEST_F(MemoryTransportTest, APeerNotHeardFromIsUnknown) {
  EXPECT_EQ(aggregator_->Send(kAlpha, Text("x")).code(), Code::kUnavailable);
  EXPECT_EQ(aggregator_->Send(ClientId{"nobody"}, Text("x")).code(), Code::kUnavailable);
  EXPECT_EQ(alpha_->Send(kBeta, Text("x")).code(), Code::kUnavailable);
}

TEST_F(MemoryTransportTest, TheSameLimitsHoldAsOnTheWire) {
  Greet();
  const Frames large{Blob::Copy(std::string(limits::kControlBytesMax + 1, 'x')), {}};
  EXPECT_EQ(alpha_->Send(kAggregator, large).code(), Code::kInvalidArgument);
  const Frames chunk{{}, Blob::Copy(std::string(limits::kChunkBytes + 1, 'x'))};
  EXPECT_EQ(aggregator_->Send(kAlpha, chunk).code(), Code::kInvalidArgument);
}

TEST_F(MemoryTransportTest, AQueueThatNobodyServesFillsAndEmptiesAgain) {
  Greet();
  Status status;
  int sent = 0;
  while ((status = aggregator_->Send(kAlpha, Text("x"))).ok()) ++sent;
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_TRUE(aggregator_->Send(kBeta, Text("x")).ok()) << "another peer's queue is its own";
  Turn();
  EXPECT_EQ(alpha_notes_.messages.size(), static_cast<size_t>(sent));
  EXPECT_TRUE(aggregator_->Send(kAlpha, Text("x")).ok());
}

TEST_F(MemoryTransportTest, WhatIsUnderWayWhenAPeerIsCutIsNotDelivered) {
  Greet();
  ASSERT_TRUE(alpha_->Send(kAggregator, Text("late")).ok());
  aggregator_->Cut(kAlpha, InvalidArgument("malformed"));
  EXPECT_EQ(aggregator_->Send(kAlpha, Text("x")).code(), Code::kUnavailable);
  Turn();
  EXPECT_EQ(aggregator_notes_.messages.size(), 2u) << "the two greetings";
  ASSERT_EQ(alpha_notes_.gone.size(), 1u);
  EXPECT_EQ(alpha_notes_.gone[0].second.message(), "malformed");
  ASSERT_TRUE(alpha_->Send(kAggregator, Text("back")).ok());
  Turn();
  EXPECT_EQ(aggregator_notes_.messages.back().frames.control.view(), "back");
  EXPECT_TRUE(aggregator_->Send(kAlpha, Text("welcome")).ok());
}

TEST_F(MemoryTransportTest, AClientThatIsDestroyedOrCutsIsGone) {
  Greet();
  alpha_.reset();
  beta_->Cut(kAggregator, Cancelled("leaving"));
  Turn();
  ASSERT_EQ(aggregator_notes_.gone.size(), 2u);
  EXPECT_EQ(aggregator_notes_.gone[0].first, kAlpha);
  EXPECT_EQ(aggregator_notes_.gone[1].first, kBeta);
  EXPECT_EQ(beta_->Send(kAggregator, Text("x")).code(), Code::kUnavailable);
}

TEST_F(MemoryTransportTest, AClientThatSaysGoodbyeAndLeavesIsHeardBeforeItIsGone) {
  Greet();
  ASSERT_TRUE(alpha_->Send(kAggregator, Text("goodbye")).ok());
  alpha_.reset();
  Turn();
  EXPECT_EQ(aggregator_notes_.messages.back().frames.control.view(), "goodbye");
  EXPECT_EQ(aggregator_notes_.gone.size(), 1u);
}

TEST_F(MemoryTransportTest, TheAggregatorsEndIsNoticedByAll) {
  Greet();
  aggregator_.reset();
  Turn();
  EXPECT_EQ(alpha_notes_.gone.size(), 1u);
  EXPECT_EQ(beta_notes_.gone.size(), 1u);
  EXPECT_EQ(alpha_->Send(kAggregator, Text("x")).code(), Code::kUnavailable);
  aggregator_ = hub_.MakeAggregator(loop_);
  aggregator_->SetReceiver(&aggregator_notes_);
  ASSERT_TRUE(alpha_->Send(kAggregator, Text("again")).ok());
  Turn();
  EXPECT_EQ(aggregator_notes_.messages.back().frames.control.view(), "again");
}

TEST_F(MemoryTransportTest, TheNewerEndOfOneNameWins) {
  Greet();
  Notes newer_notes;
  const auto newer = hub_.MakeClient(loop_, kAlpha);
  newer->SetReceiver(&newer_notes);
  Turn();
  EXPECT_EQ(aggregator_notes_.gone.size(), 1u);
  EXPECT_EQ(alpha_notes_.gone.size(), 1u);
  EXPECT_EQ(alpha_->Send(kAggregator, Text("x")).code(), Code::kUnavailable);
  ASSERT_TRUE(newer->Send(kAggregator, Text("hello")).ok());
  Turn();
  ASSERT_TRUE(aggregator_->Send(kAlpha, Text("for the newer")).ok());
  Turn();
  EXPECT_EQ(newer_notes.messages.size(), 1u);
  EXPECT_TRUE(alpha_notes_.messages.empty());
}

TEST(MemoryTransportThreadsTest, EndsOnLoopsOfTheirOwnEcho) {
  MemoryHub hub;
  EventLoop here;
  Notes notes;
  const auto aggregator = hub.MakeAggregator(here);
  aggregator->SetReceiver(&notes);
  notes.on_frames = [&](const ClientId& from, Frames frames) {
    EXPECT_TRUE(aggregator->Send(from, std::move(frames)).ok());
  };
  constexpr int kMessages = 100;
  int done = 0;  // used in this thread's loop only
  std::vector<std::thread> threads;
  for (const char* name : {"alpha", "beta", "gamma"}) {
    threads.emplace_back([&, name] {
      EventLoop loop;
      Notes echoes;
      const auto client = hub.MakeClient(loop, ClientId{name});
      client->SetReceiver(&echoes);
      for (int i = 0; i < kMessages; ++i) {
        Status sent = client->Send(kAggregator, Text(Str(i)));
        while (sent.code() == Code::kResourceExhausted) {  // the other loop has not come round yet
          loop.RunOnce(std::chrono::milliseconds(1));
          sent = client->Send(kAggregator, Text(Str(i)));
        }
        EXPECT_TRUE(sent.ok()) << sent;
      }
      loop.RunUntil([&] { return echoes.messages.size() == kMessages; });
      for (int i = 0; i < kMessages; ++i) {
        EXPECT_EQ(echoes.messages[static_cast<size_t>(i)].frames.control.view(), Str(i));
      }
      here.Post([&done] { ++done; });
    });
  }
  here.RunUntil([&] { return done == 3; });
  EXPECT_EQ(notes.messages.size(), 3u * kMessages);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace weft
