#pragma once
// ThreadExecutor: worker threads that run jobs of a WorkTable and post their results into the loop.
// Owned by main; must be destroyed before the loop. An exception that escapes a job (a bug) is
// thrown again in the loop's thread, where main() sees it.

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "common/net/event_loop.h"
#include "common/runtime/executor.h"

namespace weft {

class ThreadExecutor : public Executor {
 public:
  /// `on_thread_start` runs first on each worker (its number of torch threads …).
  ThreadExecutor(EventLoop& loop, const WorkTable& table, size_t threads,
                 std::function<void()> on_thread_start = {});
  /// Cancels what runs or waits (JobControl::cancelled), waits for the threads; results not yet
  /// delivered are dropped.
  ~ThreadExecutor() override;
  ThreadExecutor(const ThreadExecutor&) = delete;
  ThreadExecutor& operator=(const ThreadExecutor&) = delete;

  void SubmitAny(std::any job, Nanos modelled_cost, std::shared_ptr<JobControl> control,
                 std::function<void(std::any)> done) override;

 private:
  struct Task {
    std::any job;
    std::shared_ptr<JobControl> control;
    std::function<void(std::any)> done;
  };

  void Work(const std::function<void()>& on_thread_start);
  void RunTask(Task task);

  EventLoop& loop_;
  const WorkTable& table_;
  std::shared_ptr<bool> alive_ =
      std::make_shared<bool>(true);  // read and written in the loop's thread only
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::deque<Task> tasks_;
  std::vector<std::shared_ptr<JobControl>> running_;
  std::vector<std::thread> threads_;
};

}  // namespace weft
