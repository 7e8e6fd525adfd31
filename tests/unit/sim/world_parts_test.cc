#include <atomic>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "sim/event_queue.h"
#include "sim/executor.h"
#include "sim/network.h"

namespace weft::sim {
namespace {

using namespace std::chrono_literals;

TEST(EventQueueTest, EventsFireByTimeThenByOrderOfScheduling) {
  EventQueue queue;
  std::string order;
  queue.At(20ms, [&] { order += 'c'; });
  queue.At(10ms, [&] { order += 'a'; });
  queue.At(10ms, [&] { order += 'b'; });
  const TimerId cancelled = queue.At(15ms, [&] { order += 'x'; });
  queue.Cancel(cancelled);
  while (queue.RunOne()) {
  }
  EXPECT_EQ(order, "abc");
  EXPECT_EQ(queue.now(), Nanos(20ms));
}

TEST(EventQueueTest, AnEventInThePastFiresNow) {
  EventQueue queue;
  Nanos seen{0};
  queue.At(30ms, [&] { queue.At(10ms, [&] { seen = queue.now(); }); });
  while (queue.RunOne()) {
  }
  EXPECT_EQ(seen, Nanos(30ms));
}

struct Recorder : Transport::Receiver {
  explicit Recorder(EventQueue& queue_in) : queue(queue_in) {}
  void OnFrames(const ClientId& from, Frames frames) override {
    lines.push_back(Str(from, ":", frames.control.view(), "@", queue.now().count() / 1000000));
  }
  void OnPeerGone(const ClientId& peer, const Status& why) override {
    lines.push_back(Str(peer, " gone: ", why.message()));
  }
  EventQueue& queue;
  std::vector<std::string> lines;
};

TEST(SimNetworkTest, FramesQueueBehindOneAnotherOnALink) {
  EventQueue queue;
  SimNetwork network(queue, {.latency = 5ms, .bytes_per_s = 1000});
  Recorder aggregator(queue);
  network.AggregatorEnd().SetReceiver(&aggregator);
  Transport& client = network.ClientEnd(ClientId{"a"});
  ASSERT_TRUE(client.Send(kAggregator, {Blob::Copy(std::string_view("0123456789")), {}}).ok());
  ASSERT_TRUE(client.Send(kAggregator, {Blob::Copy(std::string_view("x")), {}}).ok());
  while (queue.RunOne()) {
  }
  // Ten bytes at 1000 bytes/s take 10 ms, the next byte 1 ms more; 5 ms of latency on top.
  EXPECT_EQ(aggregator.lines, (std::vector<std::string>{"a:0123456789@15", "a:x@16"}));
  EXPECT_EQ(network.bytes_carried(), 11u);
}

TEST(SimNetworkTest, ACutLosesWhatIsInFlightAndTellsThePeer) {
  EventQueue queue;
  SimNetwork network(queue, {});
  Recorder client(queue);
  Transport& end = network.ClientEnd(ClientId{"a"});
  end.SetReceiver(&client);
  ASSERT_TRUE(
      network.AggregatorEnd().Send(ClientId{"a"}, {Blob::Copy(std::string_view("m")), {}}).ok());
  network.AggregatorEnd().Cut(ClientId{"a"}, PermissionDenied("key revoked"));
  while (queue.RunOne()) {
  }
  EXPECT_EQ(client.lines, (std::vector<std::string>{"aggregator gone: key revoked"}));
}

TEST(SimNetworkTest, LimitsAndUnknownPeersAreStatuses) {
  EventQueue queue;
  SimNetwork network(queue, {});
  const Blob big = Blob::Adopt(std::vector<std::byte>(limits::kControlBytesMax + 1));
  Transport& end = network.ClientEnd(ClientId{"a"});
  EXPECT_EQ(end.Send(kAggregator, {big, {}}).code(), Code::kInvalidArgument);
  EXPECT_EQ(network.AggregatorEnd().Send(ClientId{"nobody"}, {}).code(), Code::kUnavailable);
}

struct Square {
  using Output = int;
  int x = 0;
};

std::vector<std::string> RunSquares(size_t workers) {
  EventQueue queue;
  WorkTable table;
  table.On<Square>([](const Square& job, JobControl&) -> Result<int> {
    if (job.x < 0) return InvalidArgument("negative");
    return job.x * job.x;
  });
  WorkerPool pool(workers, [] {});
  SimExecutor executor(queue, pool, table);
  std::vector<std::string> lines;
  for (int x = 4; x >= -1; --x) {
    Submit(executor, Square{x}, std::chrono::milliseconds(x + 2), std::make_shared<JobControl>(),
           [&, x](Result<int> result) {
             lines.push_back(Str(x, "→", result.ok() ? Str(*result) : result.status().message(),
                                 "@", queue.now().count() / 1000000));
           });
  }
  while (queue.RunOne()) {
  }
  return lines;
}

TEST(SimExecutorTest, ResultsArriveAtTheirModelledTimeWhateverTheWorkers) {
  const std::vector<std::string> expected = {"-1→negative@1", "0→0@2", "1→1@3",
                                             "2→4@4",         "3→9@5", "4→16@6"};
  EXPECT_EQ(RunSquares(1), expected);
  EXPECT_EQ(RunSquares(4), expected);
}

struct Broken {
  using Output = int;
};

TEST(SimExecutorTest, ABugInTheWorkSurfacesInTheLoop) {
  EventQueue queue;
  WorkTable table;
  table.On<Broken>([](const Broken&, JobControl&) -> Result<int> {
    WEFT_CHECK(false, "on purpose");
    return 0;
  });
  WorkerPool pool(1, [] {});
  SimExecutor executor(queue, pool, table);
  Submit(executor, Broken{}, 1ms, std::make_shared<JobControl>(), [](Result<int>) {});
  EXPECT_THROW(queue.RunOne(), CheckFailure);
}

}  // namespace
}  // namespace weft::sim
