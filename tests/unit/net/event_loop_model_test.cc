// The loop's timers against a sorted list, its mailbox against a queue, and the executor's threads
// on many small jobs.

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/net/event_loop.h"
#include "common/net/thread_executor.h"

namespace weft {
namespace {

// Timers set, cancelled and set again from within timers, all drawn at random.
TEST(EventLoopModelTest, TimersFireOnceInOrderNeverEarlyAndNeverWhenCancelled) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    RandomStream random(seed);
    EventLoop loop;
    struct Timer {
      Nanos when;
      bool cancelled = false;
      int fired = 0;
    };
    std::map<uint64_t, Timer> timers;  // by id
    std::vector<std::pair<Nanos, uint64_t>> order;
    std::function<void(int)> set = [&](int depth) {
      const Nanos when = loop.Now() + Nanos(static_cast<int64_t>(random.Below(2'000'000)));
      auto id = std::make_shared<TimerId>();
      *id = loop.At(when, [&, id, depth] {
        Timer& timer = timers.at(id->value);
        ++timer.fired;
        ASSERT_GE(loop.Now(), timer.when);
        order.emplace_back(timer.when, id->value);
        if (depth < 3 && random.Below(3) == 0) set(depth + 1);
        if (random.Below(4) == 0) {
          auto other = timers.begin();
          std::advance(other, static_cast<std::ptrdiff_t>(random.Below(timers.size())));
          loop.Cancel(TimerId{other->first});
          if (other->second.fired == 0) other->second.cancelled = true;
        }
      });
      timers[id->value] = {when};
    };
    for (int i = 0; i < 30; ++i) set(0);
    const auto open = [&] {
      return std::any_of(timers.begin(), timers.end(), [](const auto& entry) {
        return entry.second.fired == 0 && !entry.second.cancelled;
      });
    };
    loop.RunUntil([&] { return !open(); });
    loop.RunOnce(std::chrono::milliseconds(3));
    for (const auto& [id, timer] : timers) EXPECT_EQ(timer.fired, timer.cancelled ? 0 : 1) << id;
    // A timer set by one that fired late may be earlier than others that are due in the same turn;
    // among those set before the loop ran the order is that of time.
    std::vector<std::pair<Nanos, uint64_t>> first;
    for (const auto& entry : order) {
      if (entry.second <= 30) first.push_back(entry);
    }
    EXPECT_TRUE(std::is_sorted(first.begin(), first.end()));
  }
}

TEST(EventLoopModelTest, AnUnknownTimerIsIgnoredAndAFiredOneCannotBeCancelled) {
  EventLoop loop;
  int fired = 0;
  const TimerId timer = loop.At(loop.Now(), [&] { ++fired; });
  loop.RunOnce(Nanos(0));
  EXPECT_EQ(fired, 1);
  loop.Cancel(timer);
  loop.Cancel(TimerId{999'999});
  const TimerId next = loop.At(loop.Now(), [&] { ++fired; });
  EXPECT_NE(next, timer) << "ids are not used again";
  loop.RunOnce(Nanos(0));
  EXPECT_EQ(fired, 2);
}

TEST(EventLoopModelTest, ATimerOfThePastFiresInTheNextTurnAndOneOfTheFutureWaits) {
  EventLoop loop;
  std::string order;
  loop.At(loop.Now() - Seconds(100), [&] { order += 'p'; });
  loop.At(loop.Now() + Seconds(1000), [&] { order += 'f'; });
  loop.RunOnce(Nanos(0));
  EXPECT_EQ(order, "p");
}

TEST(EventLoopModelTest, WhatIsPostedWhileTheMailIsReadRunsInTheNextTurn) {
  EventLoop loop;
  std::string order;
  loop.Post([&] {
    order += 'a';
    loop.Post([&] { order += 'c'; });
  });
  loop.Post([&] { order += 'b'; });
  loop.RunOnce(Nanos(0));
  EXPECT_EQ(order, "ab");
  loop.RunOnce(Seconds(10));
  EXPECT_EQ(order, "abc") << "and the loop does not wait before it";
}

TEST(EventLoopModelTest, WaitingEndsAtOnceWhenAnotherThreadPosts) {
  EventLoop loop;
  bool arrived = false;
  std::thread other([&] { loop.Post([&] { arrived = true; }); });
  const auto start = std::chrono::steady_clock::now();
  loop.RunUntil([&] { return arrived; });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  other.join();
}

TEST(EventLoopModelTest, SecondsAndNanosAreEachOthersInverse) {
  for (const double seconds : {0.0, 1e-9, 0.001, 0.5, 1.0, 3600.0, 1e6}) {
    EXPECT_DOUBLE_EQ(ToSeconds(Seconds(seconds)), seconds);
  }
  EXPECT_EQ(Seconds(1.5), std::chrono::milliseconds(1500));
  EXPECT_EQ(Seconds(-0.25), std::chrono::milliseconds(-250));
}

// ---- the executor ----

struct SquareJob {
  using Output = int;
  int number = 0;
};
struct FailJob {
  using Output = int;
};

WorkTable Table() {
  WorkTable table;
  table.On<SquareJob>([](const SquareJob& job, JobControl& control) -> Result<int> {
    control.progress = 1;
    return job.number * job.number;
  });
  table.On<FailJob>([](const FailJob&, JobControl&) -> Result<int> { return DataLoss("broken"); });
  return table;
}

TEST(ThreadExecutorModelTest, EveryJobIsDoneOnceWhateverTheNumberOfThreads) {
  const WorkTable table = Table();
  for (const size_t threads : {size_t{1}, size_t{2}, size_t{8}}) {
    EventLoop loop;
    std::atomic<int> started{0};
    std::vector<int> order;
    int failed = 0;
    {
      ThreadExecutor executor(loop, table, threads, [&] { ++started; });
      for (int i = 0; i < 200; ++i) {
        Submit<SquareJob>(executor, SquareJob{i}, Nanos(0), nullptr, [&, i](Result<int> result) {
          EXPECT_EQ(*result, i * i);
          order.push_back(i);
        });
        if (i % 20 == 0) {
          Submit<FailJob>(executor, FailJob{}, Nanos(0), nullptr, [&](Result<int> result) {
            EXPECT_EQ(result.status().code(), Code::kDataLoss);
            ++failed;
          });
        }
      }
      loop.RunUntil([&] { return order.size() == 200 && failed == 10; });
    }
    EXPECT_EQ(started, static_cast<int>(threads)) << "each thread prepares itself once";
    EXPECT_EQ(std::set<int>(order.begin(), order.end()).size(), 200u);
    if (threads == 1) {
      EXPECT_TRUE(std::is_sorted(order.begin(), order.end())) << "first come, first done";
    }
  }
}

TEST(ThreadExecutorModelTest, ProgressIsSeenThroughTheControl) {
  const WorkTable table = Table();
  EventLoop loop;
  ThreadExecutor executor(loop, table, 1);
  const auto control = std::make_shared<JobControl>();
  bool done = false;
  Submit<SquareJob>(executor, SquareJob{3}, Nanos(0), control,
                    [&](const Result<int>&) { done = true; });
  loop.RunUntil([&] { return done; });
  EXPECT_EQ(control->progress, 1.0F);
  EXPECT_FALSE(control->cancelled);
}

TEST(WorkTableTest, AJobThatNobodyRegisteredIsABugThatNamesIt) {
  const WorkTable table;
  JobControl control;
  EXPECT_THROW((void)table.Run(std::any(SquareJob{}), control), CheckFailure);
}

}  // namespace
}  // namespace weft
