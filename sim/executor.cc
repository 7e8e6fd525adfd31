#include "sim/executor.h"

#include <exception>
#include <utility>

namespace weft::sim {

struct WorkerPool::Ticket {
  std::mutex mutex;
  std::condition_variable ready;
  bool done = false;
  std::any result;
  std::exception_ptr failure;  // a CheckFailure in the work: rethrown where the result is awaited
};

WorkerPool::WorkerPool(size_t workers, std::function<void()> on_thread_start)
    : on_thread_start_(std::move(on_thread_start)) {
  WEFT_CHECK(workers > 0);
  for (size_t i = 0; i < workers; ++i) threads_.emplace_back([this] { Loop(); });
}

WorkerPool::~WorkerPool() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<WorkerPool::Ticket> WorkerPool::Submit(std::function<std::any()> work) {
  auto ticket = std::make_shared<Ticket>();
  {
    const std::scoped_lock lock(mutex_);
    queue_.emplace_back(std::move(work), ticket);
  }
  wake_.notify_one();
  return ticket;
}

std::any WorkerPool::Wait(Ticket& ticket) {
  std::unique_lock lock(ticket.mutex);
  ticket.ready.wait(lock, [&] { return ticket.done; });
  if (ticket.failure) std::rethrow_exception(ticket.failure);
  return std::move(ticket.result);
}

void WorkerPool::Loop() {
  on_thread_start_();
  for (;;) {
    std::pair<std::function<std::any()>, std::shared_ptr<Ticket>> next;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      next = std::move(queue_.front());
      queue_.pop_front();
    }
    std::any result;
    std::exception_ptr failure;
    try {
      result = next.first();
    } catch (const CheckFailure&) {
      failure = std::current_exception();
    }
    next.first = nullptr;  // the job's payload is freed here, not when the result is fetched
    const std::scoped_lock lock(next.second->mutex);
    next.second->result = std::move(result);
    next.second->failure = failure;
    next.second->done = true;
    next.second->ready.notify_all();
  }
}

void SimExecutor::SubmitAny(std::any job, Nanos modelled_cost, std::shared_ptr<JobControl> control,
                            std::function<void(std::any)> done) {
  auto ticket =
      pool_.Submit([this, job = std::move(job), control] { return table_.Run(job, *control); });
  queue_.At(queue_.now() + modelled_cost, [ticket = std::move(ticket), done = std::move(done)] {
    done(WorkerPool::Wait(*ticket));
  });
}

}  // namespace weft::sim
