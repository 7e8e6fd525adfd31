#pragma once
// SimExecutor: real work on real threads, delivered in virtual time. A job's result arrives at
// (time of submission + modelled cost), whatever the threads did in between, so results and their
// order do not depend on the number of workers.

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "common/runtime/executor.h"
#include "sim/event_queue.h"

namespace weft::sim {

/// Threads shared by all nodes of a simulation.
class WorkerPool {
 public:
  /// `on_thread_start` runs once on each worker (number of torch threads …).
  WorkerPool(size_t workers, std::function<void()> on_thread_start);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  struct Ticket;
  /// Queues work; Wait() returns its result.
  [[nodiscard]] std::shared_ptr<Ticket> Submit(std::function<std::any()> work);
  [[nodiscard]] static std::any Wait(Ticket& ticket);

 private:
  void Loop();

  std::function<void()> on_thread_start_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<std::function<std::any()>, std::shared_ptr<Ticket>>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

/// The Executor of one node in simulation.
class SimExecutor : public Executor {
 public:
  SimExecutor(EventQueue& queue, WorkerPool& pool, const WorkTable& table)
      : queue_(queue), pool_(pool), table_(table) {}

  void SubmitAny(std::any job, Nanos modelled_cost, std::shared_ptr<JobControl> control,
                 std::function<void(std::any)> done) override;

 private:
  EventQueue& queue_;
  WorkerPool& pool_;
  const WorkTable& table_;
};

}  // namespace weft::sim
