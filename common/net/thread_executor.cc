#include "common/net/thread_executor.h"

#include <algorithm>
#include <exception>

#include "common/base/check.h"

namespace weft {

ThreadExecutor::ThreadExecutor(EventLoop& loop, const WorkTable& table, size_t threads,
                               std::function<void()> on_thread_start)
    : loop_(loop), table_(table) {
  WEFT_CHECK(threads > 0);
  for (size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, on_thread_start] { Work(on_thread_start); });
  }
}

ThreadExecutor::~ThreadExecutor() {
  *alive_ = false;
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
    for (const auto& control : running_) control->cancelled = true;
    tasks_.clear();
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadExecutor::SubmitAny(std::any job, Nanos /*modelled_cost*/,
                               std::shared_ptr<JobControl> control,
                               std::function<void(std::any)> done) {
  if (!control) control = std::make_shared<JobControl>();
  {
    const std::scoped_lock lock(mutex_);
    tasks_.push_back({std::move(job), std::move(control), std::move(done)});
  }
  changed_.notify_one();
}

void ThreadExecutor::Work(const std::function<void()>& on_thread_start) {
  if (on_thread_start) on_thread_start();
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    const std::shared_ptr<JobControl> control = task.control;
    running_.push_back(control);
    lock.unlock();
    RunTask(std::move(task));
    lock.lock();
    running_.erase(std::find(running_.begin(), running_.end(), control));
  }
}

void ThreadExecutor::RunTask(Task task) {
  // A thread's end is a door: what escapes a job is carried to the loop, where it ends the program
  // in main() like any bug.
  std::any result;
  std::exception_ptr escaped;
  try {
    result = table_.Run(task.job, *task.control);
  } catch (...) {
    escaped = std::current_exception();
  }
  loop_.Post(
      [alive = alive_, done = std::move(task.done), result = std::move(result), escaped]() mutable {
        if (escaped) std::rethrow_exception(escaped);
        if (*alive) done(std::move(result));
      });
}

}  // namespace weft
