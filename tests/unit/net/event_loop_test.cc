#include "common/net/event_loop.h"

#include <thread>

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/net/signal_watcher.h"
#include "common/net/thread_executor.h"

namespace weft {
namespace {

TEST(EventLoopTest, TimersFireInOrderOfTimeAndThenOfSetting) {
  EventLoop loop;
  std::string order;
  const Nanos now = loop.Now();
  loop.At(now + Nanos(2), [&] { order += 'c'; });
  loop.At(now + Nanos(1), [&] { order += 'a'; });
  loop.At(now + Nanos(1), [&] { order += 'b'; });
  loop.RunUntil([&] { return order.size() == 3; });
  EXPECT_EQ(order, "abc");
}

TEST(EventLoopTest, ACancelledTimerDoesNotFireAndCancellingTwiceIsFine) {
  EventLoop loop;
  bool cancelled_fired = false, done = false;
  const TimerId timer = loop.At(loop.Now(), [&] { cancelled_fired = true; });
  loop.Cancel(timer);
  loop.Cancel(timer);
  loop.Cancel(TimerId{});
  loop.At(loop.Now() + Nanos(1), [&] { done = true; });
  loop.RunUntil([&] { return done; });
  EXPECT_FALSE(cancelled_fired);
}

TEST(EventLoopTest, ATimerCanCancelAnotherOfTheSameMoment) {
  EventLoop loop;
  bool second_fired = false, done = false;
  TimerId second;
  loop.At(loop.Now(), [&] { loop.Cancel(second); });
  second = loop.At(loop.Now(), [&] { second_fired = true; });
  loop.At(loop.Now(), [&] { done = true; });
  loop.RunUntil([&] { return done; });
  EXPECT_FALSE(second_fired);
}

TEST(EventLoopTest, NowStandsStillWithinATurnAndMovesBetweenTurns) {
  EventLoop loop;
  Nanos first{0}, again{0};
  loop.At(loop.Now(), [&] {
    first = loop.Now();
    const auto busy_until = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
    while (std::chrono::steady_clock::now() < busy_until) {
    }
    again = loop.Now();
  });
  loop.RunUntil([&] { return first != Nanos(0); });
  EXPECT_EQ(first, again);
  loop.RunOnce(Nanos(0));
  EXPECT_GE(loop.Now(), first + std::chrono::milliseconds(2));
}

TEST(EventLoopTest, ATimerThatAlwaysSetsAnotherDoesNotHoldTheTurn) {
  EventLoop loop;
  int fired = 0;
  std::function<void()> again = [&] {
    ++fired;
    loop.At(loop.Now(), again);
  };
  loop.At(loop.Now(), again);
  for (int turn = 0; turn < 3; ++turn) loop.RunOnce(Nanos(0));
  EXPECT_EQ(fired, 3);
}

TEST(EventLoopTest, PostsFromManyThreadsAllRunInTheLoopEachThreadsInOrder) {
  EventLoop loop;
  constexpr int kThreads = 4, kPosts = 500;
  std::vector<std::vector<int>> seen(kThreads);
  std::vector<std::thread> threads;
  const auto here = std::this_thread::get_id();
  bool elsewhere = false;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        loop.Post([&, t, i] {
          seen[static_cast<size_t>(t)].push_back(i);
          elsewhere = elsewhere || std::this_thread::get_id() != here;
        });
      }
    });
  }
  size_t total = 0;
  loop.RunUntil([&] {
    total = 0;
    for (const auto& list : seen) total += list.size();
    return total == kThreads * kPosts;
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(elsewhere);
  for (const auto& list : seen) EXPECT_TRUE(std::is_sorted(list.begin(), list.end()));
}

// Always has more work than any budget.
struct Flood : EventSource {
  [[nodiscard]] int Fd() const override { return -1; }
  [[nodiscard]] bool Pending() override { return true; }
  void Run(int budget) override { served += budget; }
  int served = 0;
};

TEST(EventLoopTest, AFloodOfMessagesStarvesNeitherTimersNorPosts) {
  EventLoop loop;
  Flood flood;
  loop.Add(&flood);
  int timers = 0, posts = 0;
  std::function<void()> tick = [&] {
    ++timers;
    loop.Post([&] { ++posts; });
    loop.At(loop.Now(), tick);
  };
  loop.At(loop.Now(), tick);
  for (int turn = 0; turn < 10; ++turn) loop.RunOnce(Seconds(10));
  EXPECT_EQ(timers, 10);
  EXPECT_EQ(posts, 9);
  EXPECT_GT(flood.served, 0);
  loop.Remove(&flood);
}

// Removes another source, or itself, while it is served.
struct Remover : EventSource {
  Remover(EventLoop& loop_in, EventSource* victim_in) : loop(loop_in), victim(victim_in) {}
  [[nodiscard]] int Fd() const override { return -1; }
  [[nodiscard]] bool Pending() override { return true; }
  void Run(int) override {
    ++runs;
    if (victim != nullptr) loop.Remove(victim);
  }
  EventLoop& loop;
  EventSource* victim;
  int runs = 0;
};

TEST(EventLoopTest, SourcesMayBeRemovedWhileTheyAreServedAndBetweenTurns) {
  EventLoop loop;
  Remover last(loop, nullptr);
  Remover first(loop, &last);
  loop.Add(&first);
  loop.Add(&last);
  loop.RunOnce(Nanos(0));
  EXPECT_EQ(first.runs, 1);
  EXPECT_EQ(last.runs, 0);
  loop.Remove(&first);
  loop.RunOnce(Nanos(0));
  EXPECT_EQ(first.runs, 1);
}

// ---- executor ----

struct Doubling {
  using Output = int;
  int value = 0;
};
struct WaitForCancel {
  using Output = int;
};
struct Bug {
  using Output = int;
};

WorkTable Table() {
  WorkTable table;
  table.On<Doubling>([](const Doubling& job, JobControl&) -> Result<int> {
    if (job.value < 0) return InvalidArgument("negative");
    return 2 * job.value;
  });
  table.On<WaitForCancel>([](const WaitForCancel&, JobControl& control) -> Result<int> {
    control.progress = 0.5f;
    while (!control.cancelled) std::this_thread::yield();
    return Cancelled("stopped");
  });
  table.On<Bug>([](const Bug&, JobControl&) -> Result<int> {
    WEFT_CHECK(false, "a bug in a job");
    return 0;
  });
  return table;
}

TEST(ThreadExecutorTest, ResultsComeBackInTheLoopsThread) {
  EventLoop loop;
  const WorkTable table = Table();
  ThreadExecutor executor(loop, table, 3);
  std::vector<int> results;
  int failures = 0;
  const auto here = std::this_thread::get_id();
  for (int i = -1; i < 100; ++i) {
    Submit(executor, Doubling{i}, Nanos(0), nullptr, [&](Result<int> result) {
      EXPECT_EQ(std::this_thread::get_id(), here);
      if (result.ok()) results.push_back(*result);
      if (!result.ok()) ++failures;
    });
  }
  loop.RunUntil([&] { return results.size() == 100; });
  std::sort(results.begin(), results.end());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(results[static_cast<size_t>(i)], 2 * i);
  EXPECT_EQ(failures, 1);
}

TEST(ThreadExecutorTest, ARunningJobIsCancelledThroughItsControl) {
  EventLoop loop;
  const WorkTable table = Table();
  ThreadExecutor executor(loop, table, 1);
  const auto control = std::make_shared<JobControl>();
  Status outcome;
  Submit(executor, WaitForCancel{}, Nanos(0), control,
         [&](Result<int> result) { outcome = result.status(); });
  while (control->progress == 0) loop.RunOnce(std::chrono::milliseconds(1));
  control->cancelled = true;
  loop.RunUntil([&] { return !outcome.ok(); });
  EXPECT_EQ(outcome.code(), Code::kCancelled);
}

TEST(ThreadExecutorTest, DestructionCancelsRunningJobsAndDropsTheirResults) {
  EventLoop loop;
  const WorkTable table = Table();
  bool delivered = false;
  {
    ThreadExecutor executor(loop, table, 1);
    const auto control = std::make_shared<JobControl>();
    for (int i = 0; i < 3; ++i) {
      Submit(executor, WaitForCancel{}, Nanos(0), control,
             [&](const Result<int>&) { delivered = true; });
    }
    while (control->progress == 0) std::this_thread::yield();
  }
  loop.RunOnce(Nanos(0));
  EXPECT_FALSE(delivered);
}

TEST(ThreadExecutorTest, ABugInAJobSurfacesInTheLoopLikeAnyOther) {
  EventLoop loop;
  const WorkTable table = Table();
  ThreadExecutor executor(loop, table, 1);
  Submit(executor, Bug{}, Nanos(0), nullptr,
         [](const Result<int>&) { FAIL() << "there is no result"; });
  EXPECT_THROW(loop.RunUntil([] { return false; }), CheckFailure);
}

// ---- signals ----

TEST(SignalWatcherTest, SignalsArriveAsCallbacksInTheLoop) {
  EventLoop loop;
  std::vector<int> signals;
  SignalWatcher watcher(loop, [&](int number) { signals.push_back(number); });
  kill(getpid(), SIGTERM);
  loop.RunUntil([&] { return signals.size() == 1; });
  kill(getpid(), SIGINT);
  loop.RunUntil([&] { return signals.size() == 2; });
  EXPECT_EQ(signals, (std::vector<int>{SIGTERM, SIGINT}));
}

}  // namespace
}  // namespace weft
