// Processes that die in a virtual world: what they asked for comes back to nobody.

#include "sim/virtual_world.h"

#include <gtest/gtest.h>

namespace weft::sim {
namespace {

using namespace std::chrono_literals;

struct Double {
  using Output = int;
  int x = 0;
};

class Recorder : public Transport::Receiver {
 public:
  void OnFrames(const ClientId& from, Frames frames) override {
    lines.push_back(from.name + ": " + std::string(frames.control.view()));
  }
  void OnPeerGone(const ClientId& peer, const Status&) override {
    lines.push_back(peer.name + " gone");
  }
  std::vector<std::string> lines;
};

class VirtualWorldTest : public ::testing::Test {
 protected:
  VirtualWorldTest() {
    table_.On<Double>([](const Double& job, JobControl&) -> Result<int> { return 2 * job.x; });
    WorldOptions options;
    options.work = &table_;
    options.on_worker_start = [] {};
    options.sim.latency_ms = 5;
    options.write_time = 2ms;
    world_ = std::make_unique<VirtualWorld>(std::move(options));
  }
  void RunFor(Nanos time) {
    bool over = false;
    world_->At(world_->queue().now() + time, [&] { over = true; });
    ASSERT_TRUE(world_->RunUntil([&] { return over; }).ok());
  }
  static Frames Text(const char* text) { return {Blob::Copy(text), {}}; }

  WorkTable table_;
  std::unique_ptr<VirtualWorld> world_;
};

TEST_F(VirtualWorldTest, TimersJobsAndWritesOfADeadProcessAreSilent) {
  Env env = world_->MakeEnv(ClientId{"a"});
  std::vector<std::string> seen;
  const auto ask = [&](const std::string& life) {
    env.clock.At(env.clock.Now() + 10ms, [&seen, life] { seen.push_back(life + " timer"); });
    Submit<Double>(env.executor, {21}, 20ms, std::make_shared<JobControl>(),
                   [&seen, life](Result<int> result) {
                     seen.push_back(life + " job " + std::to_string(*result));
                   });
    env.store.WriteBlob("x", Blob::Copy(life),
                        [&seen, life](const Status&) { seen.push_back(life + " write"); });
  };
  ask("first");
  world_->Kill(ClientId{"a"});
  ask("second");
  RunFor(100ms);
  EXPECT_EQ(seen, (std::vector<std::string>{"second write", "second timer", "second job 42"}));
}

TEST_F(VirtualWorldTest, ADiskOutlivesItsProcess) {
  Env env = world_->MakeEnv(ClientId{"a"});
  env.store.WriteBlob("x", Blob::Copy("kept"), [](const Status&) {});
  RunFor(10ms);
  world_->Kill(ClientId{"a"});
  EXPECT_EQ(world_->MakeEnv(ClientId{"a"}).store.ReadBlob("x")->view(), "kept");
  EXPECT_EQ(world_->disk(ClientId{"a"}).ReadBlob("x")->view(), "kept");
}

TEST_F(VirtualWorldTest, AClientsDeathIsNoticedByTheAggregatorAlone) {
  Recorder aggregator, a, b;
  Env center = world_->MakeEnv(kAggregator);
  Env first = world_->MakeEnv(ClientId{"a"});
  Env second = world_->MakeEnv(ClientId{"b"});
  center.transport.SetReceiver(&aggregator);
  first.transport.SetReceiver(&a);
  second.transport.SetReceiver(&b);
  // In flight to and from it when it dies.
  ASSERT_TRUE(first.transport.Send(kAggregator, Text("up")).ok());
  ASSERT_TRUE(center.transport.Send(ClientId{"a"}, Text("down")).ok());
  ASSERT_TRUE(second.transport.Send(kAggregator, Text("of b")).ok());
  world_->Kill(ClientId{"a"});
  RunFor(50ms);
  EXPECT_TRUE(a.lines.empty());
  EXPECT_TRUE(b.lines.empty());
  EXPECT_EQ(aggregator.lines, (std::vector<std::string>{"a gone", "b: of b"}));
  // Its next life is a new link.
  first.transport.SetReceiver(&a);
  ASSERT_TRUE(center.transport.Send(ClientId{"a"}, Text("welcome back")).ok());
  RunFor(50ms);
  EXPECT_EQ(a.lines, (std::vector<std::string>{"aggregator: welcome back"}));
}

TEST_F(VirtualWorldTest, TheAggregatorsDeathIsNoticedByAll) {
  Recorder aggregator, a, b;
  Env center = world_->MakeEnv(kAggregator);
  center.transport.SetReceiver(&aggregator);
  world_->MakeEnv(ClientId{"a"}).transport.SetReceiver(&a);
  world_->MakeEnv(ClientId{"b"}).transport.SetReceiver(&b);
  world_->Kill(kAggregator);
  RunFor(50ms);
  EXPECT_EQ(a.lines, (std::vector<std::string>{"aggregator gone"}));
  EXPECT_EQ(b.lines, (std::vector<std::string>{"aggregator gone"}));
  // Messages to the dead go nowhere, and are no error: a socket takes them too.
  EXPECT_TRUE(world_->MakeEnv(ClientId{"a"}).transport.Send(kAggregator, Text("hello?")).ok());
  RunFor(50ms);
  EXPECT_TRUE(aggregator.lines.empty());
}

TEST_F(VirtualWorldTest, WeatherLosesRepeatsAndDelays) {
  Recorder aggregator;
  world_->MakeEnv(kAggregator).transport.SetReceiver(&aggregator);
  Env client = world_->MakeEnv(ClientId{"a"});
  std::vector<std::vector<Nanos>> days = {{}, {0ms, 0ms}, {30ms}, {0ms}};
  size_t day = 0;
  world_->network().SetWeather([&](const ClientId&, bool) { return days[day++]; });
  size_t tapped = 0;
  world_->network().SetTap([&](const ClientId& from, const ClientId& to, const Frames&) {
    EXPECT_EQ(from, ClientId{"a"});
    EXPECT_EQ(to, kAggregator);
    ++tapped;
  });
  for (const char* text : {"lost", "twice", "late", "early"}) {
    ASSERT_TRUE(client.transport.Send(kAggregator, Text(text)).ok());
  }
  RunFor(100ms);
  EXPECT_EQ(aggregator.lines,
            (std::vector<std::string>{"a: twice", "a: twice", "a: early", "a: late"}));
  EXPECT_EQ(tapped, 4u) << "the lost one too";
}

TEST_F(VirtualWorldTest, AWorldInWhichNothingHappensAnyMoreSaysSo) {
  EXPECT_EQ(world_->RunUntil([] { return false; }).code(), Code::kDeadlineExceeded);
}

}  // namespace
}  // namespace weft::sim
